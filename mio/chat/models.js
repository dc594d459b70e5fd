// `<mio-model src="FILE.glb">`, or `.obj`: a model that is turned by dragging and by the arrow keys. Nothing but the file
// is fetched. It is drawn without WebGL, of which a page has sixteen at most: triangle by triangle, nearer pixels win.
// What cannot be shown (compressed or sparse data, no triangles) stays the link that stands inside the element.
if (!customElements.get('mio-model')) {
  const NUMBERS = {5121: Uint8Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array};
  const SIDE = 440, MOST = 64 << 20;
  // in a shadow tree, which stays when the page's own nodes are brought up to date
  const STYLE = `canvas { display: block; width: var(--mio-model, 220px); max-width: 100%; cursor: grab; touch-action: none; }
    canvas:focus-visible { outline: 2px solid; border-radius: 10px; }`;

  const product = (a, b) => Array.from({length: 16}, (_, i) =>  // matrices by column, as glTF has them
    [0, 1, 2, 3].reduce((sum, k) => sum + a[4 * k + i % 4] * b[4 * (i >> 2) + k], 0));
  const placed = (node) => {
    if (node.matrix) return node.matrix;
    const [x, y, z, w] = node.rotation || [0, 0, 0, 1], [a, b, c] = node.scale || [1, 1, 1];
    return [a * (1 - 2 * (y * y + z * z)), a * 2 * (x * y + w * z), a * 2 * (x * z - w * y), 0,
      b * 2 * (x * y - w * z), b * (1 - 2 * (x * x + z * z)), b * 2 * (y * z + w * x), 0,
      c * 2 * (x * z + w * y), c * 2 * (y * z - w * x), c * (1 - 2 * (x * x + y * y)), 0, ...(node.translation || [0, 0, 0]), 1];
  };

  // corners [x, y, z, ...] and triangles [a, b, c, ...] of a binary glTF 2.0 file (Khronos, section 4.4)
  const ofGlb = (file) => {
    const view = new DataView(file), size = view.getUint32(12, true);
    const gltf = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 20, size))), binary = 28 + size;
    const numbers = (index, width) => {
      const of = gltf.accessors[index], from = gltf.bufferViews[of.bufferView], kind = NUMBERS[of.componentType];
      const bytes = kind.BYTES_PER_ELEMENT, step = from.byteStride || bytes * width;
      const start = binary + (from.byteOffset || 0) + (of.byteOffset || 0), found = [];
      for (let i = 0; i < of.count; i++) for (let k = 0; k < width; k++)
        found.push(new kind(file.slice(start + i * step + k * bytes, start + i * step + (k + 1) * bytes))[0]);
      return found;
    };
    const corners = [], triangles = [];
    const walk = (index, above) => {
      const node = gltf.nodes[index], m = product(above, placed(node));
      for (const part of node.mesh === undefined ? [] : gltf.meshes[node.mesh].primitives) {
        if ((part.mode ?? 4) !== 4) continue;
        const from = corners.length / 3, own = numbers(part.attributes.POSITION, 3);
        for (let i = 0; i < own.length; i += 3) for (let k = 0; k < 3; k++)
          corners.push(m[k] * own[i] + m[k + 4] * own[i + 1] + m[k + 8] * own[i + 2] + m[k + 12]);
        const order = part.indices === undefined ? [...Array(own.length / 3).keys()] : numbers(part.indices, 1);
        for (const corner of order) triangles.push(from + corner);
      }
      for (const child of node.children || []) walk(child, m);
    };
    for (const root of gltf.scenes[gltf.scene || 0].nodes) walk(root, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    return {corners, triangles};
  };

  const ofObj = (text) => {
    const corners = [], triangles = [];
    for (const [kind, ...rest] of text.split('\n').map((line) => line.trim().split(/\s+/))) {
      if (kind === 'v') corners.push(...rest.slice(0, 3).map(Number));
      if (kind !== 'f') continue;
      const face = rest.map((one) => parseInt(one)).map((one) => one < 0 ? corners.length / 3 + one : one - 1);
      for (let i = 2; i < face.length; i++) triangles.push(face[0], face[i - 1], face[i]);
    }
    return {corners, triangles};
  };

  // around the middle, in a sphere of radius 1
  const fitted = ({corners, triangles}) => {
    if (!triangles.length || !triangles.every((corner) => 3 * corner < corners.length && corner >= 0)) throw new Error('no triangles');
    if (!corners.every(Number.isFinite)) throw new Error('corners without a place');
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    corners.forEach((value, i) => { low[i % 3] = Math.min(low[i % 3], value); high[i % 3] = Math.max(high[i % 3], value); });
    const radius = Math.hypot(...high.map((value, i) => value - low[i])) / 2 || 1;
    return {corners: corners.map((value, i) => (value - (low[i % 3] + high[i % 3]) / 2) / radius), triangles};
  };

  const draw = (context, {corners, triangles}, turn, tilt) => {
    const picture = context.createImageData(SIDE, SIDE), depth = new Float32Array(SIDE * SIDE).fill(-Infinity);
    const [s, c, u, v] = [Math.sin(turn), Math.cos(turn), Math.sin(tilt), Math.cos(tilt)], seen = new Float32Array(corners.length);
    for (let i = 0; i < corners.length; i += 3) {
      const x = corners[i] * c + corners[i + 2] * s, z = corners[i + 2] * c - corners[i] * s;
      seen.set([(x * 0.95 + 1) * SIDE / 2, (1 - (corners[i + 1] * v - z * u) * 0.95) * SIDE / 2, (z * v + corners[i + 1] * u) * SIDE / 2], i);
    }
    for (let i = 0; i < triangles.length; i += 3) {
      const [[ax, ay, az], [bx, by, bz], [cx, cy, cz]] = [0, 1, 2].map((k) => seen.subarray(3 * triangles[i + k], 3 * triangles[i + k] + 3));
      const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
      if (!area) continue;
      const dx = ((bz - az) * (cy - ay) - (cz - az) * (by - ay)) / area, dy = ((cz - az) * (bx - ax) - (bz - az) * (cx - ax)) / area;
      const light = Math.max(0, (0.4 * dx + 0.75 * dy + 0.6) / Math.hypot(dx, dy, 1)), shade = 70 + 165 * Math.min(1, light);
      const [x0, x1, y0, y1] = [Math.min(ax, bx, cx), Math.max(ax, bx, cx), Math.min(ay, by, cy), Math.max(ay, by, cy)];
      for (let y = Math.floor(y0); y <= y1; y++) for (let x = Math.floor(x0); x <= x1; x++) {
        const p = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area, q = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area;
        const z = az + dx * (x - ax) + dy * (y - ay), at = y * SIDE + x;
        if (p < 0 || q < 0 || p + q > 1 || z <= depth[at]) continue;
        depth[at] = z;
        picture.data.set([0.75 * shade, 0.82 * shade, shade, 255], 4 * at);
      }
    }
    context.putImageData(picture, 0, 0);
  };

  customElements.define('mio-model', class extends HTMLElement {
    async connectedCallback() {
      if (this.shown) return;
      this.shown = true;
      const address = this.getAttribute('src');
      try {
        const answer = await fetch(address);
        if (!answer.ok || Number(answer.headers.get('content-length')) > MOST) throw new Error(answer.statusText);
        const model = fitted(/\.obj$/i.test(address) ? ofObj(await answer.text()) : ofGlb(await answer.arrayBuffer()));
        const canvas = Object.assign(document.createElement('canvas'), {width: SIDE, height: SIDE, tabIndex: 0});
        let turn = -0.5, tilt = 0.45;
        const moved = (x, y) => {
          turn += x;
          tilt = Math.max(-1.6, Math.min(1.6, tilt + y));
          draw(canvas.getContext('2d'), model, turn, tilt);
        };
        canvas.addEventListener('pointerdown', (event) => canvas.setPointerCapture(event.pointerId));
        canvas.addEventListener('pointermove', (event) => { if (event.buttons) moved(event.movementX / 100, event.movementY / 100); });
        canvas.addEventListener('keydown', (event) => {
          const [x, y] = {ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2]}[event.key] || [0, 0];
          if (x || y) { event.preventDefault(); moved(x, y); }
        });
        canvas.setAttribute('role', 'img');
        canvas.setAttribute('aria-label', this.title);
        moved(0, 0);
        const style = document.createElement('style');
        style.textContent = STYLE;
        this.attachShadow({mode: 'open'}).append(style, canvas, document.createElement('slot'));
      } catch (problem) {
        console.warn(`${address} is not shown: ${problem}`);
      }
    }
  });
}
