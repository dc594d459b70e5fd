// Gradio's page posts an event to `queue/join` and reads what becomes of it from `queue/data`, one response for all events,
// which the server ends with `close_stream` when none is left. An event that joins before the page has read that line is
// read by nobody: the page believes that its response is open, and the server has ended it. So gradio's page gets a
// response here that never ends. Behind it the server's responses are read one after another, while any event is not over.
(() => {
  const fetch = window.fetch.bind(window);
  const encoder = new TextEncoder();
  const unfinished = new Set(); // ids of events that have joined
  const early = new Set(); // of events that were over before the answer came that they had joined
  let reader = null; // {request, out}: what gradio's page asked for, and the response that it reads
  let reading = false;

  const end = (one, error) => {
    if (reader === one) reader = null;
    try { one.out.error(error); } catch { /* it has ended already */ }
  };

  // One response of the server, message by message. Whether it ended in order.
  const pass = async (response, out) => {
    let closed = false;
    let rest = '';
    const body = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await body.read();
      if (done) return closed;
      const messages = (rest + value).split('\n\n');
      rest = messages.pop();
      for (const message of messages) {
        const { msg, event_id: id } = JSON.parse(message.slice('data:'.length));
        if (msg === 'close_stream') {
          closed = true;
          continue;
        }
        if (msg === 'process_completed' && !unfinished.delete(id)) early.add(id);
        if (msg === 'unexpected_error') unfinished.clear(); // the server stops, or knows nothing of this page
        out.enqueue(encoder.encode(`${message}\n\n`));
      }
    }
  };

  const read = async () => {
    if (reading) return;
    reading = true;
    while (reader && unfinished.size) {
      const one = reader;
      try {
        const response = await fetch(one.request.clone());
        if (!response.ok || !(await pass(response, one.out))) throw new TypeError('the connection was lost');
      } catch (error) {
        if (reader === one) unfinished.clear();
        end(one, error);
      }
    }
    reading = false;
  };

  const open = (request) => {
    const body = new ReadableStream({
      start(out) {
        const one = { request, out };
        request.signal.addEventListener('abort', () => end(one, request.signal.reason));
        reader = one;
      },
      cancel() { reader = null; },
    });
    read();
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
  };

  const join = async (input, init) => {
    const response = await fetch(input, init);
    const { event_id: id } = response.ok ? await response.clone().json() : {};
    if (id && !early.delete(id)) unfinished.add(id);
    read();
    return response;
  };

  window.fetch = async (input, init) => {
    const path = new URL(input instanceof Request ? input.url : input, document.baseURI).pathname;
    if (path.endsWith('/queue/join')) return join(input, init);
    if (path.endsWith('/queue/data')) return open(new Request(input, init));
    return fetch(input, init);
  };
})();
