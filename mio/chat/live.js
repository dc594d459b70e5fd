// Live talk: what the microphone hears goes to the server as it comes, and what the model says is shown and played.
// `element` is the component's element.
const $ = (selector) => element.querySelector(selector);
const [button, state, level, log] = ['.mio-talk', '.mio-live-state', '.mio-level span', '.mio-live-log'].map($);
const HEARER = `registerProcessor('mio-hearer', class extends AudioWorkletProcessor {
  constructor() { super(); this.kept = new Float32Array(2048); this.filled = 0; }
  process(inputs) {
    for (const sample of inputs[0][0] || []) {
      this.kept[this.filled++] = sample;
      if (this.filled === this.kept.length) { this.port.postMessage(this.kept.slice()); this.filled = 0; }
    }
    return true;
  }
});`;
let socket = null, context = null, microphone = null, playing = [], playUntil = 0, answers = {};

function told(text) { state.textContent = text; }

function bubble(kind, query) {
  const empty = log.querySelector('.mio-empty');
  if (empty) empty.remove();
  const turn = document.createElement('div'), inner = document.createElement('div');
  turn.className = 'mio-turn ' + kind;
  inner.className = 'mio-bubble';
  turn.append(inner);
  log.append(turn);
  if (query !== undefined) answers[query] = inner;
  log.scrollTop = log.scrollHeight;
  return inner;
}

function answer(query) { return answers[query] || bubble('mio-model', query); }

function note(inner, text) {
  const line = document.createElement('div');
  line.className = 'mio-note';
  line.textContent = text;
  inner.append(line);
}

function say(inner, text) {
  const last = inner.lastElementChild;
  if (last && last.className === 'mio-text') { last.textContent += text; return; }
  const span = document.createElement('span');
  span.className = 'mio-text';
  span.textContent = text;
  inner.append(span);
}

function put(inner, html) { inner.insertAdjacentHTML('beforeend', html); }

function silence() {
  for (const source of playing) source.stop();
  playing = [];
  playUntil = 0;
}

function play(event) {
  if (!context) context = new AudioContext();
  const bytes = Uint8Array.from(atob(event.pcm), (one) => one.charCodeAt(0));
  const pcm = new Int16Array(bytes.buffer);
  if (!pcm.length) return;
  const buffer = context.createBuffer(1, pcm.length, event.rate), samples = buffer.getChannelData(0);
  for (let place = 0; place < pcm.length; place++) samples[place] = pcm[place] / 32768;
  const source = context.createBufferSource();
  source.buffer = buffer;
  source.connect(context.destination);
  playUntil = Math.max(context.currentTime + 0.02, playUntil);
  source.start(playUntil);
  playUntil += buffer.duration;
  playing.push(source);
  element.dataset.played = Number(element.dataset.played || 0) + 1;
  source.onended = () => { playing = playing.filter((one) => one !== source); };
}

const HANDLERS = {
  ready: () => told(microphone ? 'Listening.' : 'Connected. The microphone is off.'),
  heard: (event) => note(bubble('mio-user'), 'heard ' + (event.end - event.start).toFixed(1) + ' s'),
  shown: (event) => put(bubble('mio-user'), event.html),
  control: (event) => {
    const name = document.createElement('code');
    name.className = 'mio-said';
    name.textContent = event.control;
    answer(event.query).append(name);
  },
  silence: (event) => note(answer(event.query), 'not meant for the model'),
  text: (event) => say(answer(event.query), event.text),
  chunk: (event) => { if (event.pcm) play(event); },
  media: (event) => { put(answer(event.query), event.html); if (event.pcm) play(event); },
  interrupted: (event) => { silence(); note(answer(event.query), 'interrupted'); },
  done: () => {},
  ignored: (event) => problem(event.reason),
  failed: (event) => problem(event.reason),
  problem: (event) => problem(event.reason),
  over: (event) => { problem(event.reason); hangUp(); },
};

function problem(text) {
  const line = document.createElement('div');
  line.className = 'mio-problem';
  line.textContent = text;
  log.append(line);
  log.scrollTop = log.scrollHeight;
}

function connect() {
  if (socket) return socket.opened;
  const address = new URL('mio/live', document.baseURI);
  address.protocol = address.protocol.replace('http', 'ws');
  const one = socket = new WebSocket(address);
  one.binaryType = 'arraybuffer';
  if (!context) context = new AudioContext();
  context.resume();
  one.onmessage = (message) => {
    const event = JSON.parse(message.data);
    (HANDLERS[event.event] || (() => {}))(event);
    log.scrollTop = log.scrollHeight;
  };
  one.onclose = () => { if (socket === one) hangUp(); };
  one.opened = new Promise((resolve, reject) => {
    one.onopen = () => {
      one.send(JSON.stringify({start: {rate: context.sampleRate, output: $('.mio-live-output').value}}));
      resolve();
    };
    one.onerror = () => { problem('the server cannot be reached'); reject(new Error('no connection')); };
  });
  return one.opened;
}

function hangUp() {
  quiet();
  silence();
  const one = socket;
  socket = null;
  answers = {};
  if (one) one.close();
  told('The microphone is off.');
}

function quiet() {
  if (microphone) for (const track of microphone.getTracks()) track.stop();
  if (microphone && socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({end: true}));
  microphone = null;
  button.textContent = 'Start talking';
  button.setAttribute('aria-pressed', 'false');
  level.style.width = '0';
}

async function listen() {
  if (!navigator.mediaDevices) { problem('browsers give the microphone to https and localhost alone'); return; }
  try {
    microphone = await navigator.mediaDevices.getUserMedia({audio: {channelCount: 1, echoCancellation: true}});
  } catch (error) { problem('the microphone cannot be used: ' + error.message); return; }
  button.textContent = 'Stop';
  button.setAttribute('aria-pressed', 'true');
  await connect();
  const module = URL.createObjectURL(new Blob([HEARER], {type: 'text/javascript'}));
  await context.audioWorklet.addModule(module);
  URL.revokeObjectURL(module);
  if (!microphone) return;
  const source = context.createMediaStreamSource(microphone), hearer = new AudioWorkletNode(context, 'mio-hearer');
  hearer.port.onmessage = ({data}) => {
    if (!microphone || !socket || socket.readyState !== WebSocket.OPEN) return;
    let sum = 0;
    for (const sample of data) sum += sample * sample;
    level.style.width = Math.min(100, 400 * Math.sqrt(sum / data.length)) + '%';
    socket.send(data.buffer);
  };
  source.connect(hearer);
  told('Listening.');
}

button.addEventListener('click', () => { if (microphone) { quiet(); told('The microphone is off.'); } else listen(); });
$('.mio-live-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const input = $('.mio-live-form input'), text = input.value;
  if (!text.trim()) return;
  input.value = '';
  await connect();
  say(bubble('mio-user'), text);
  socket.send(JSON.stringify({say: text}));
});
$('.mio-show input').addEventListener('change', async (event) => {
  const file = event.target.files[0];
  event.target.value = '';
  if (!file) return;
  const reader = new FileReader();
  reader.onload = async () => {
    await connect();
    socket.send(JSON.stringify({show: file.name, data: reader.result.split(',')[1] || ''}));
  };
  reader.readAsDataURL(file);
});
$('.mio-show').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); $('.mio-show input').click(); }
});
$('.mio-live-output').addEventListener('change', () => { if (socket) hangUp(); });
