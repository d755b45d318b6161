// The report's viewer: slices with overlays, surfaces in space, and the table; what is chosen in one is shown in the others.
'use strict';

const el = (id) => document.getElementById(id);
const meta = JSON.parse(el('meta').textContent);

async function inflated(id, kind) {
  const text = el(id).textContent.trim();
  if (!text) return new kind(0);
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new kind(await new Response(stream).arrayBuffer());
}

const hex = (c) => '#' + c.map((v) => Math.round(255 * v).toString(16).padStart(2, '0')).join('');
const colourOf = (number) => meta.colours[(number - 1) % meta.colours.length];

function mapped(name, share) {
  const stops = meta.maps[name], at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), low = Math.floor(at);
  const high = Math.min(low + 1, stops.length - 1), part = at - low;
  return stops[low].map((v, i) => v + part * (stops[high][i] - v));
}

const listeners = [];
let chosen = 0;
function choose(number, by) {
  chosen = number === chosen && by === 'table' ? 0 : number;
  for (const tell of listeners) tell(chosen, by);
  const row = meta.rows[chosen - 1];
  el('chosen').textContent = chosen ? `membrane ${chosen}: ${row.words}` : 'Click a membrane in a slice, in space or in the table.';
}

// ---- slices ----------------------------------------------------------------------------------------------------------------
function slices(grey, labels, classes, sigma) {
  const [nz, ny, nx] = meta.shape, canvas = el('slice'), pen = canvas.getContext('2d'), slider = el('where');
  const off = document.createElement('canvas'), offPen = off.getContext('2d');
  const planes = {
    xy: { n: nz, w: nx, h: ny, at: (k, i, j) => (k * ny + j) * nx + i, axis: 2 },
    xz: { n: ny, w: nx, h: nz, at: (k, i, j) => (j * ny + k) * nx + i, axis: 1 },
    yz: { n: nx, w: ny, h: nz, at: (k, i, j) => (j * ny + i) * nx + k, axis: 0 },
  };
  let plane = planes.xy;

  function draw() {
    const k = +slider.value, { w, h, at } = plane, image = offPen.createImageData(w, h), data = image.data;
    const gain = +el('contrast').value, shown = { labels: el('labels-on').checked, network: el('network-on').checked, sigma: el('sigma-on').checked, proteins: el('proteins-on').checked };
    const last = [w - 1, h - 1];
    for (let j = 0; j < h; j++) {
      for (let i = 0; i < w; i++) {
        const v = at(k, i, j), o = 4 * (j * w + i);
        let c = Math.min(Math.max(128 + gain * (grey[v] - 128), 0), 255), r = c, g = c, b = c;
        const mix = (colour, share) => { r += share * (255 * colour[0] - r); g += share * (255 * colour[1] - g); b += share * (255 * colour[2] - b); };
        if (shown.network && classes[v] === 2) mix([1, 0.7, 0], 0.45);
        if (shown.proteins && classes[v] === 1) mix([0.2, 0.9, 0.6], 0.45);
        const label = labels[v];
        if (label && shown.sigma) mix(mapped('sigma', sigma[v] / 255), 0.85);
        else if (label && shown.labels) {
          const edge = i === 0 || j === 0 || i === last[0] || j === last[1] || labels[at(k, i - 1, j)] !== label || labels[at(k, i + 1, j)] !== label || labels[at(k, i, j - 1)] !== label || labels[at(k, i, j + 1)] !== label;
          mix(label === chosen ? [1, 1, 0.2] : colourOf(label), label === chosen ? 0.8 : edge ? 0.9 : 0.35);
        }
        data[o] = r; data[o + 1] = g; data[o + 2] = b; data[o + 3] = 255;
      }
    }
    off.width = w; off.height = h; offPen.putImageData(image, 0, 0);
    const scale = Math.max(1, Math.round(900 / w));
    canvas.width = w * scale; canvas.height = h * scale;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(off, 0, 0, canvas.width, canvas.height);
    el('place').textContent = `${k * meta.step} of ${(plane.n - 1) * meta.step}`;
  }

  function turn(name) {
    plane = planes[name];
    slider.max = plane.n - 1;
    slider.value = Math.floor(plane.n / 2);
    draw();
  }
  el('plane').addEventListener('change', (e) => turn(e.target.value));
  for (const id of ['where', 'contrast']) el(id).addEventListener('input', draw);
  for (const id of ['labels-on', 'network-on', 'sigma-on', 'proteins-on']) el(id).addEventListener('change', draw);
  canvas.addEventListener('click', (e) => {
    const box = canvas.getBoundingClientRect();
    const i = Math.floor((e.clientX - box.left) / box.width * plane.w), j = Math.floor((e.clientY - box.top) / box.height * plane.h);
    let found = 0, best = 1e9;
    for (let dj = -3; dj <= 3; dj++) for (let di = -3; di <= 3; di++) {
      const x = i + di, y = j + dj, away = di * di + dj * dj;
      if (x < 0 || y < 0 || x >= plane.w || y >= plane.h || away >= best) continue;
      const label = labels[plane.at(+slider.value, x, y)];
      if (label) { found = label; best = away; }
    }
    choose(found, 'slice');
  });
  canvas.addEventListener('wheel', (e) => { e.preventDefault(); slider.value = +slider.value + Math.sign(e.deltaY); draw(); }, { passive: false });
  listeners.push((number, by) => {
    if (number && by !== 'slice') slider.value = Math.round(meta.rows[number - 1].middle[plane.axis]);
    draw();
  });
  turn('xy');
}

// ---- space -----------------------------------------------------------------------------------------------------------------
function space(places, corners, values) {
  const canvas = el('space'), scene = new Three.Scene(), renderer = new Three.WebGLRenderer({ canvas, antialias: true, preserveDrawingBuffer: true });
  const [nz, ny, nx] = meta.shape, size = Math.max(nx, ny, nz), camera = new Three.PerspectiveCamera(35, 1, size / 100, 20 * size);
  const middle = new Three.Vector3(nx / 2, ny / 2, nz / 2), controls = new Three.OrbitControls(camera, canvas);
  scene.background = new Three.Color(0xf4f6f8);
  scene.add(new Three.AmbientLight(0xffffff, 1.6));
  const lamp = new Three.DirectionalLight(0xffffff, 1.8);
  camera.add(lamp); lamp.position.set(0.4, 0.6, 1); scene.add(camera);
  const frame = new Three.LineSegments(new Three.EdgesGeometry(new Three.BoxGeometry(nx, ny, nz)), new Three.LineBasicMaterial({ color: 0x9aa3ad }));
  frame.position.copy(middle); scene.add(frame);
  camera.position.set(middle.x + 0.5 * size, middle.y - 1.9 * size, middle.z + 0.9 * size);
  camera.up.set(0, 0, 1); controls.target.copy(middle);
  const many = places.length / 3, scale = meta.quantum, meshes = [];
  let vertex = 0, corner = 0;
  meta.rows.forEach((row, k) => {
    const geometry = new Three.BufferGeometry(), xyz = new Float32Array(3 * row.vertices);
    for (let i = 0; i < 3 * row.vertices; i++) xyz[i] = meta.low[i % 3] + scale * places[3 * vertex + i];
    geometry.setAttribute('position', new Three.BufferAttribute(xyz, 3));
    geometry.setIndex(new Three.BufferAttribute(corners.subarray(corner, corner + 3 * row.triangles), 1));
    geometry.computeVertexNormals();
    const material = new Three.MeshStandardMaterial({ vertexColors: true, side: Three.DoubleSide, roughness: 0.75, transparent: true });
    const mesh = new Three.Mesh(geometry, material);
    mesh.userData = { number: k + 1, from: vertex };
    meshes.push(mesh); scene.add(mesh);
    vertex += row.vertices; corner += 3 * row.triangles;
  });

  function paint() {
    const name = el('colour').value, at = meta.values.indexOf(name);
    for (const mesh of meshes) {
      const { number, from } = mesh.userData, n = mesh.geometry.getAttribute('position').count, colours = new Float32Array(3 * n);
      const own = colourOf(number);
      for (let i = 0; i < n; i++) {
        const c = at < 0 ? own : mapped(name, values[at * many + from + i] / 255);
        colours.set(new Three.Color().setRGB(c[0], c[1], c[2], 'srgb').toArray(), 3 * i);
      }
      mesh.geometry.setAttribute('color', new Three.BufferAttribute(colours, 3));
    }
    el('key').style.visibility = at < 0 ? 'hidden' : 'visible';
    if (at >= 0) {
      const stops = meta.maps[name].map(hex).join(',');
      el('bar').style.background = `linear-gradient(90deg,${stops})`;
      el('least').textContent = meta.limits[name][0]; el('most').textContent = meta.limits[name][1] + ' ' + meta.units[name];
    }
    render();
  }
  function render() {
    const opacity = +el('opacity').value;
    for (const mesh of meshes) {
      const it = mesh.userData.number === chosen;
      mesh.material.opacity = chosen && !it ? 0.25 * opacity : opacity;
      mesh.material.depthWrite = mesh.material.opacity > 0.95;
      mesh.material.emissive.set(it ? 0x443300 : 0x000000);
    }
    const w = canvas.clientWidth, h = canvas.clientHeight;
    renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    renderer.setSize(w, h, false);
    camera.aspect = w / h; camera.updateProjectionMatrix();
    renderer.render(scene, camera);
  }
  controls.addEventListener('change', render);
  el('colour').addEventListener('change', paint);
  el('opacity').addEventListener('input', render);
  window.addEventListener('resize', render);
  let start = null;
  canvas.addEventListener('pointerdown', (e) => { start = [e.clientX, e.clientY]; });
  canvas.addEventListener('pointerup', (e) => {
    if (!start || Math.hypot(e.clientX - start[0], e.clientY - start[1]) > 4) return;
    const box = canvas.getBoundingClientRect(), ray = new Three.Raycaster();
    ray.setFromCamera(new Three.Vector2(2 * (e.clientX - box.left) / box.width - 1, 1 - 2 * (e.clientY - box.top) / box.height), camera);
    const hit = ray.intersectObjects(meshes)[0];
    choose(hit ? hit.object.userData.number : 0, 'space');
  });
  canvas.addEventListener('keydown', (e) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[e.key];
    if (!step) return;
    e.preventDefault();
    const away = camera.position.clone().sub(controls.target), flat = Math.hypot(away.x, away.y), turn = Math.atan2(away.y, away.x) + step[0];
    const up = Math.min(Math.max(Math.atan2(away.z, flat) + step[1], -1.5), 1.5), far = away.length();
    camera.position.set(controls.target.x + far * Math.cos(up) * Math.cos(turn), controls.target.y + far * Math.cos(up) * Math.sin(turn), controls.target.z + far * Math.sin(up));
    controls.update(); render();
  });
  listeners.push(render);
  controls.update();
  paint();
}

// ---- table -----------------------------------------------------------------------------------------------------------------
function table() {
  const body = el('rows'), rows = [...body.rows];
  const value = (row, k) => { const t = row.cells[k].dataset.v ?? row.cells[k].textContent; const n = parseFloat(t); return isNaN(n) ? t : n; };
  [...document.querySelectorAll('#membranes th button')].forEach((button, k) => {
    let up = false;
    button.addEventListener('click', () => {
      up = !up;
      rows.sort((a, b) => { const x = value(a, k), y = value(b, k); return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1); });
      body.append(...rows);
      button.closest('th').setAttribute('aria-sort', up ? 'ascending' : 'descending');
    });
  });
  el('filter').addEventListener('input', (e) => {
    const text = e.target.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(text);
  });
  for (const row of rows) {
    const pick = () => choose(+row.dataset.number, 'table');
    row.addEventListener('click', pick);
    row.addEventListener('keydown', (e) => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); pick(); } });
  }
  listeners.push((number, by) => {
    for (const row of rows) row.classList.toggle('chosen', +row.dataset.number === number);
    const row = rows.find((r) => +r.dataset.number === number);
    if (row && by !== 'table') row.scrollIntoView({ block: 'nearest' });
  });
}

(async () => {
  try {
    const [grey, labels, classes, sigma] = await Promise.all([inflated('grey', Uint8Array), inflated('labels', Uint16Array), inflated('classes', Uint8Array), inflated('sigmas', Uint8Array)]);
    slices(grey, labels, classes, sigma);
    if (meta.rows.length) {
      table();
      space(await inflated('places', Uint16Array), await inflated('corners', Uint32Array), await inflated('values', Uint8Array));
    }
    choose(0, 'start');
    document.body.dataset.ready = 'yes';
  } catch (error) {
    el('broken').style.display = 'block';
    el('broken').textContent = 'The viewer does not run in this browser (' + error.message + '); the pictures and the table below do not need it.';
  }
})();
