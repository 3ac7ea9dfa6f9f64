// The viewer: a head with morph targets, driven by the clock of its sound, and its curves under it.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const audio = byId("audio");
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// Time: the sound's clock where there is sound, else the page's own.

const clock = {
  duration: data.duration,
  playing: false,
  rate: 1,
  own: 0, // s, where there is no sound
  since: 0, // ms, when `own` was true
  sound: false,
  get time() {
    if (this.sound) return clamp(audio.currentTime, 0, this.duration);
    const passed = this.playing ? ((performance.now() - this.since) / 1000) * this.rate : 0;
    return clamp(this.own + passed, 0, this.duration);
  },
  seek(time) {
    this.own = clamp(time, 0, this.duration);
    this.since = performance.now();
    if (this.sound) audio.currentTime = this.own;
    stale = true;
  },
  async play() {
    if (this.time >= this.duration - 0.02) this.seek(0);
    this.own = this.time;
    this.since = performance.now();
    if (this.sound) await audio.play();
    this.set(true);
  },
  pause() {
    this.own = this.time;
    if (this.sound) audio.pause();
    this.set(false);
  },
  set(playing) {
    this.playing = playing;
    byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    stale = true;
  },
  setRate(rate) {
    this.own = this.time;
    this.since = performance.now();
    this.rate = audio.playbackRate = rate;
  },
};

let stale = true; // something changed since the last picture
let shown = 0; // s, the time of the last picture

function loadSound() {
  const text = byId("sound")?.textContent;
  if (!text) return;
  audio.src = URL.createObjectURL(new Blob([bytesOf(text)], { type: data.sound }));
  clock.sound = true;
}

audio.addEventListener("ended", () => clock.set(false));
audio.addEventListener("seeked", () => (stale = true));

// The head.

const LIGHTS = [
  // direction to the light, linear colour; the same as in `sedtalker render`
  { to: [-0.55, 0.55, 0.75], color: [1.02, 0.93, 0.83], shadow: true },
  { to: [0.85, 0.12, 0.5], color: [0.2, 0.24, 0.3] },
  { to: [0.75, 0.45, -0.75], color: [0.75, 0.85, 1.0] },
  { to: [-0.8, 0.35, -0.7], color: [0.4, 0.38, 0.35] },
];
const SKY = [0.34, 0.36, 0.4];
const GROUND = [0.15, 0.12, 0.105];
const TURN = Math.PI / 36; // radians, of the view by one press of an arrow
const WRAP = "vec3(0.42, 0.26, 0.18)"; // how far light reaches around skin, by colour

class Head {
  constructor(canvas) {
    this.canvas = canvas;
    three.ShaderChunk.tonemapping_pars_fragment = three.ShaderChunk.tonemapping_pars_fragment.replace(
      "vec3 CustomToneMapping( vec3 color ) { return color; }",
      "vec3 CustomToneMapping( vec3 c ) { return mix( c, 0.6 + 0.4 * ( 1.0 - exp( ( 0.6 - c ) / 0.4 ) ), step( 0.6, c ) ); }",
    );
    this.renderer = new three.WebGLRenderer({ canvas, antialias: true });
    this.renderer.toneMapping = three.CustomToneMapping;
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = three.PCFShadowMap;
    this.scene = new three.Scene();
    this.scene.background = backdrop();
    this.camera = new three.PerspectiveCamera(20, 1, 0.05, 20);
    this.controls = new three.OrbitControls(this.camera, canvas);
    this.controls.minDistance = data.camera.distance * 0.25;
    this.controls.maxDistance = data.camera.distance * 4;
    this.controls.addEventListener("change", () => (stale = true));
    canvas.addEventListener("keydown", (event) => this.turnByKey(event));
    this.meshes = [];
    this.wires = [];
    this.ratio = 2; // pixels of the picture for one of the page, at most
    this.addLights();
    this.lookFromFront();
  }

  addLights() {
    for (const { to, color, shadow } of LIGHTS) {
      const light = new three.DirectionalLight();
      light.color.setRGB(...color.map((c) => c * Math.PI)); // three.js divides by pi, the renderer does not
      light.target.position.set(...data.camera.target);
      light.position.set(...data.camera.target.map((c, i) => c + to[i] * data.camera.distance));
      if (shadow) this.addShadow(light);
      this.scene.add(light, light.target);
    }
    const ambient = new three.HemisphereLight();
    ambient.color.setRGB(...SKY.map((c) => c * Math.PI));
    ambient.groundColor.setRGB(...GROUND.map((c) => c * Math.PI));
    this.scene.add(ambient);
  }

  addShadow(light) {
    const reach = data.camera.distance * 0.24;
    light.castShadow = true;
    light.shadow.mapSize.set(1024, 1024);
    light.shadow.normalBias = 0.004 * data.camera.distance;
    light.shadow.radius = 4;
    light.shadow.intensity = 0.85;
    Object.assign(light.shadow.camera, { left: -reach, right: reach, top: reach, bottom: -reach, near: 0.1, far: 4 * data.camera.distance });
  }

  async load(bytes) {
    const gltf = await new three.GLTFLoader().parseAsync(bytes.buffer, "");
    this.scene.add(gltf.scene);
    gltf.scene.traverse((object) => object.isMesh && this.meshes.push(object));
    for (const mesh of this.meshes) this.dress(mesh);
    this.mixer = new three.AnimationMixer(gltf.scene);
    const clip = gltf.animations[0];
    if (clip) {
      this.mixer.clipAction(clip).play();
      this.clipEnd = Math.max(clip.duration - 1e-4, 0); // 0: one frame, which is shown all the time
      this.readCurves(clip);
    }
  }

  // Materials that glTF cannot say: skin that light wraps around, soft edges of hair, light alone on the cornea.
  dress(mesh) {
    const material = mesh.material;
    const kind = material.name;
    mesh.frustumCulled = false;
    mesh.castShadow = !material.transparent;
    mesh.receiveShadow = true;
    if (kind === "skin") material.onBeforeCompile = wrapLight;
    if (kind === "cornea") {
      material.blending = three.AdditiveBlending;
      material.color.setRGB(0, 0, 0);
      material.opacity = 1;
      material.depthWrite = false;
      mesh.receiveShadow = false;
    }
    if (material.alphaTest > 0) {
      material.alphaToCoverage = true;
      material.alphaTest = 0.25;
    }
    if (material.transparent) material.depthWrite = false;
    if (material.map) material.map.anisotropy = 8;
    mesh.renderOrder = { cornea: 1, brows: 2, lashes: 2 }[kind] || 0;
    mesh.userData.dressed = material;
    mesh.userData.bare = ["hair", "brows", "lashes", "cornea"].includes(kind);
    if (!mesh.userData.bare) this.addWire(mesh);
  }

  addWire(mesh) {
    const wire = mesh.clone();
    wire.morphTargetInfluences = mesh.morphTargetInfluences; // one array, so that both move
    wire.material = new three.MeshBasicMaterial({ wireframe: true, color: 0xb9c6d6, transparent: true, opacity: 0.55 });
    wire.castShadow = wire.visible = false;
    mesh.parent.add(wire);
    this.wires.push(wire);
  }

  set wireframe(on) {
    this.fill ??= new three.MeshBasicMaterial({ color: 0x1b2026, polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 });
    for (const mesh of this.meshes) {
      mesh.material = on ? this.fill : mesh.userData.dressed;
      mesh.visible = !(on && mesh.userData.bare);
    }
    for (const wire of this.wires) wire.visible = on;
    stale = true;
  }

  // Weights of the whole face, by name, for the plot.
  readCurves(clip) {
    this.names = [];
    const mesh = this.meshes.find((m) => m.morphTargetDictionary);
    const track = clip.tracks.find((t) => t.name.endsWith("morphTargetInfluences"));
    if (!mesh || !track) return;
    const order = mesh.morphTargetDictionary; // keys like "10" come sorted as numbers
    this.names = Object.keys(order).sort((a, b) => order[a] - order[b]);
    this.values = track.values;
    this.influences = mesh.morphTargetInfluences;
  }

  lookFromFront() {
    const [x, y, z] = data.camera.target;
    const aspect = this.canvas.clientWidth / Math.max(this.canvas.clientHeight, 1);
    this.controls.target.set(x, y, z);
    this.camera.position.set(x, y, z + data.camera.distance / Math.min(1, aspect));
    this.controls.update();
    stale = true;
  }

  // Arrows turn the view, plus and minus change its distance, Home looks from the front.
  turnByKey(event) {
    const turns = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, -TURN], ArrowDown: [0, TURN] };
    const zooms = { "+": 0.9, "=": 0.9, "-": 1 / 0.9 };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in turns) this.moveCamera(...turns[event.key], 1);
    else if (event.key in zooms) this.moveCamera(0, 0, zooms[event.key]);
    else if (event.key === "Home") this.lookFromFront();
    else return;
    event.preventDefault();
    event.stopPropagation(); // arrows outside the face change the time
  }

  // Move around the face by angles in radians, to the right and down, and to `zoom` times the distance.
  moveCamera(right, down, zoom) {
    const { target, minDistance, maxDistance } = this.controls;
    const offset = this.camera.position.clone().sub(target);
    const across = Math.atan2(offset.x, offset.z) + right;
    const polar = clamp(Math.acos(offset.y / offset.length()) + down, 0.05, Math.PI - 0.05);
    const distance = clamp(offset.length() * zoom, minDistance, maxDistance);
    const level = distance * Math.sin(polar);
    offset.set(level * Math.sin(across), distance * Math.cos(polar), level * Math.cos(across));
    this.camera.position.copy(target).add(offset);
    this.controls.update();
    stale = true;
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, this.ratio));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
  }

  draw(time) {
    // Frame i shows the middle of its time, (i + 0.5) / fps, and lies at i / fps in the glTF.
    if (this.clipEnd !== undefined) this.mixer.setTime(clamp(time - 0.5 / data.fps, 0, this.clipEnd));
    this.renderer.render(this.scene, this.camera);
  }
}

function wrapLight(shader) {
  const physical = three.ShaderChunk.lights_physical_pars_fragment.replace(
    "reflectedLight.directDiffuse += irradiance * diffuseBRDF",
    `vec3 wrapped = clamp( ( dot( geometryNormal, directLight.direction ) + ${WRAP} ) / ( 1.0 + ${WRAP} ), 0.0, 1.0 );
     reflectedLight.directDiffuse += wrapped * directLight.color * diffuseBRDF`,
  );
  shader.fragmentShader = shader.fragmentShader.replace("#include <lights_physical_pars_fragment>", physical);
}

function backdrop() {
  const canvas = Object.assign(document.createElement("canvas"), { width: 256, height: 256 });
  const pen = canvas.getContext("2d");
  const shade = pen.createRadialGradient(128, 110, 10, 128, 128, 190);
  shade.addColorStop(0, "#4c5461");
  shade.addColorStop(1, "#191c21");
  pen.fillStyle = shade;
  pen.fillRect(0, 0, 256, 256);
  const texture = new three.CanvasTexture(canvas);
  texture.colorSpace = three.SRGBColorSpace;
  return texture;
}

// The glTF: the server's page names its address, a page in one file contains it.
async function loadBytes() {
  if (!data.head) return inflated(byId("head").textContent);
  const response = await fetch(data.head);
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function inflated(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The lanes.

let posterior = bytesOf(data.posterior);
let intensity = bytesOf(data.intensity);
const INK = ["#e9ecf0", "#7fb2f0", "#f2b84b", "#7cc68d", "#ef8fb5", "#b79af0", "#f08a6b", "#6fd0cf"];

class Lane {
  constructor(canvas, paint) {
    this.canvas = canvas;
    this.paint = paint;
    this.still = document.createElement("canvas"); // everything but the line of the present
    const scrub = (event) => clock.seek((event.offsetX / canvas.clientWidth) * clock.duration);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      scrub(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && scrub(event));
  }

  resize() {
    this.scale = Math.min(devicePixelRatio, 2);
    for (const canvas of [this.canvas, this.still]) {
      canvas.width = Math.round(this.canvas.clientWidth * this.scale);
      canvas.height = Math.round(this.canvas.clientHeight * this.scale);
    }
    this.repaint();
  }

  repaint() {
    const pen = this.still.getContext("2d");
    pen.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    pen.clearRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    this.paint(pen, this.canvas.clientWidth, this.canvas.clientHeight);
    stale = true;
  }

  draw(time) {
    if (!this.still.width || !this.still.height) return;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.drawImage(this.still, 0, 0);
    pen.fillStyle = "#ffffff";
    pen.fillRect(Math.round((time / clock.duration) * this.canvas.width) - this.scale / 2, 0, 1.5 * this.scale, this.canvas.height);
  }
}

// Rows of `width` bytes at the track's rate, read between frames; the track's frames lie at the middle of their time.
function shareAt(values, width, column, time) {
  const last = values.length / width - 1;
  const place = clamp(time * data.trackRate - 0.5, 0, last);
  const before = Math.floor(place);
  const after = Math.min(before + 1, last);
  const part = place - before;
  return (values[before * width + column] * (1 - part) + values[after * width + column] * part) / 255;
}

// Intensity of the likeliest emotion at a time; that of neutral is 0.
function intensityAt(time) {
  const classes = data.labels.length;
  const neutral = data.labels.indexOf("neutral");
  const shares = data.labels.map((_, k) => shareAt(posterior, classes, k, time));
  return shares[neutral] >= Math.max(...shares) ? 0 : shareAt(intensity, 1, 0, time);
}

const NAMES_HEIGHT = 24; // pixels, the row of segments

function paintEmotion(pen, width, height) {
  const classes = data.labels.length;
  const top = data.segments.length ? NAMES_HEIGHT + 4 : 6;
  const tall = height - top - 6;
  let above = new Float32Array(Math.ceil(width) + 1); // sum of the shares before, by pixel
  for (let k = 0; k < classes; k++) {
    const below = above.map((sum, x) => sum + shareAt(posterior, classes, k, (x / width) * clock.duration));
    pen.fillStyle = data.colors[k];
    pen.globalAlpha = data.labels[k] === "neutral" ? 0.28 : 0.75;
    pen.beginPath();
    above.forEach((sum, x) => pen.lineTo(x, top + sum * tall));
    for (let x = below.length - 1; x >= 0; x--) pen.lineTo(x, top + below[x] * tall);
    pen.fill();
    above = below;
  }
  pen.globalAlpha = 1;
  data.uncertain.forEach((span) => paintUncertain(pen, span, width, top, tall));
  for (const [ink, thick] of [["#0f1216", 4], ["#ffffff", 1.6]]) {
    pen.beginPath();
    for (let x = 0; x <= width; x++) {
      const level = intensityAt((x / width) * clock.duration);
      pen.lineTo(x, top + tall * (1 - level));
    }
    Object.assign(pen, { strokeStyle: ink, lineWidth: thick, lineJoin: "round" });
    pen.stroke();
  }
  data.segments.forEach((segment) => paintSegment(pen, segment, width));
}

// Hatching over a span (start and end in seconds) whose emotion is not certain.
function paintUncertain(pen, span, width, top, tall) {
  const [from, to] = span.map((time) => (time / clock.duration) * width);
  pen.save();
  pen.beginPath();
  pen.rect(from, top, to - from, tall);
  pen.clip();
  pen.beginPath();
  for (let x = Math.floor((from - tall) / 6) * 6; x < to; x += 6) {
    pen.moveTo(x, top + tall);
    pen.lineTo(x + tall, top);
  }
  Object.assign(pen, { strokeStyle: "rgba(15, 18, 22, 0.8)", lineWidth: 1.5 });
  pen.stroke();
  pen.restore();
}

function paintSegment(pen, segment, width) {
  const from = (segment.start / clock.duration) * width;
  const to = (segment.end / clock.duration) * width;
  pen.save();
  pen.beginPath();
  pen.roundRect(from + 0.75, 5, Math.max(to - from - 1.5, 1), NAMES_HEIGHT - 7, 3);
  pen.fillStyle = data.colors[data.labels.indexOf(segment.emotion)] || "#8f99a6";
  pen.fill();
  pen.clip();
  pen.fillStyle = "#10131a";
  pen.font = "600 11px system-ui, sans-serif";
  const share = segment.emotion === "neutral" ? "" : ` ${Math.round(segment.intensity * 100)}%`;
  const text = [segment.emotion + share, segment.emotion].find((words) => pen.measureText(words).width < to - from - 10);
  if (text) pen.fillText(text, from + 6, 17.5);
  pen.restore();
}

function paintCurves(pen, width, height) {
  const count = head?.names?.length || 0;
  if (!count) return;
  const frames = head.values.length / count;
  const low = data.signed ? -1 : 0;
  pen.strokeStyle = "#262c35";
  for (const level of [0, 0.5, 1]) pen.strokeRect(0, 8 + (height - 16) * level, width, 0.5);
  chosen.forEach((name, order) => {
    const column = head.names.indexOf(name);
    const step = Math.max(1, Math.floor(frames / (width * 2)));
    pen.beginPath();
    for (let i = 0; i < frames; i += step) {
      const level = clamp((head.values[i * count + column] - low) / (1 - low), 0, 1);
      pen.lineTo(((i + 0.5) / data.fps / clock.duration) * width, height - 8 - level * (height - 16));
    }
    Object.assign(pen, { strokeStyle: INK[order % INK.length], lineWidth: 1.6, lineJoin: "round" });
    pen.stroke();
  });
}

// The keys beside the lanes.

function entry(tag, color, name) {
  const node = Object.assign(document.createElement(tag), { className: "entry" });
  const swatch = document.createElement("i");
  swatch.style.background = color;
  const text = Object.assign(document.createElement("span"), { textContent: name });
  const value = document.createElement("output");
  node.append(swatch, text, value);
  return { node, value };
}

const emotionKey = data.labels.map((label, k) => {
  const { node, value } = entry("div", data.colors[k], label);
  byId("emotions").append(node);
  return { node, value };
});

// Below the emotions: the line and the hatching of the lane.
const intensityKey = entry("div", "", "intensity");
const uncertainKey = entry("div", "", "not certain");
intensityKey.node.classList.add("level", "strong");
uncertainKey.node.classList.add("uncertain");
uncertainKey.node.title = "No speech, or no emotion that is likely enough";
byId("emotions").append(intensityKey.node, uncertainKey.node);

let chosen = [];
let shapeKey = [];

function listShapes() {
  const box = byId("shapes");
  box.replaceChildren();
  shapeKey = chosen.map((name, order) => {
    const { node, value } = entry("button", INK[order % INK.length], name);
    node.title = "Remove";
    node.classList.add("strong");
    node.addEventListener("click", () => choose(chosen.filter((other) => other !== name)));
    box.append(node);
    return value;
  });
  const rest = (head?.names || []).filter((name) => !chosen.includes(name));
  if (!rest.length || chosen.length >= INK.length) return;
  const add = Object.assign(document.createElement("select"), { id: "add" });
  add.setAttribute("aria-label", "Add a blendshape");
  add.append(new Option("Add a curve", ""), ...rest.map((name) => new Option(name, name)));
  add.addEventListener("change", () => choose([...chosen, add.value]));
  box.append(add);
}

function choose(names) {
  chosen = names;
  listShapes();
  lanes[1].repaint();
}

function tellValues(time) {
  const now = emotionKey.map((_, k) => shareAt(posterior, data.labels.length, k, time));
  emotionKey.forEach(({ node, value }, k) => {
    value.textContent = `${Math.round(now[k] * 100)}%`;
    node.classList.toggle("strong", now[k] >= 0.15);
  });
  intensityKey.value.textContent = `${Math.round(intensityAt(time) * 100)}%`;
  uncertainKey.node.hidden = !data.uncertain.length;
  uncertainKey.node.classList.toggle("strong", data.uncertain.some(([from, to]) => from <= time && time < to));
  shapeKey.forEach((value, order) => {
    value.textContent = head.influences[head.names.indexOf(chosen[order])].toFixed(2);
  });
}

// Running.

const clockText = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(1).padStart(4, "0")}`;
const lanes = [new Lane(byId("emotion"), paintEmotion), new Lane(byId("curves"), paintCurves)];
let head = null;

function draw() {
  requestAnimationFrame(draw);
  if (clock.playing && !clock.sound && clock.time >= clock.duration) clock.pause();
  if (!stale && !clock.playing) return;
  stale = false;
  const time = (shown = clock.time);
  if (head) head.draw(time);
  tellValues(time);
  for (const lane of lanes) lane.draw(time);
  byId("time").textContent = `${clockText(time)} / ${clockText(clock.duration)}`;
  byId("scrub").value = time;
}

function connect() {
  byId("scrub").max = clock.duration;
  byId("scrub").addEventListener("input", (event) => clock.seek(Number(event.target.value)));
  byId("play").addEventListener("click", () => (clock.playing ? clock.pause() : clock.play()));
  byId("speed").addEventListener("change", (event) => clock.setRate(Number(event.target.value)));
  byId("front").addEventListener("click", () => head?.lookFromFront());
  byId("wireframe").addEventListener("click", ({ target }) => {
    const on = target.getAttribute("aria-pressed") !== "true";
    target.setAttribute("aria-pressed", on);
    if (head) head.wireframe = on;
  });
  addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const tag = event.target.tagName;
    if (tag === "SELECT" || (tag === "BUTTON" && event.key === " ")) return; // their own keys
    if (tag === "INPUT" && event.target !== byId("scrub")) return;
    if (event.key === " ") byId("play").click();
    else if (event.key in steps) clock.seek(clock.time + steps[event.key] / data.fps);
    else if (event.key === "Home") clock.seek(0);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(() => {
    head?.resize();
    for (const lane of lanes) lane.resize();
  }).observe(document.body);
}

async function start() {
  loadSound();
  connect();
  requestAnimationFrame(draw);
  try {
    head = new Head(byId("view"));
    head.resize();
    head.lookFromFront();
    await head.load(await loadBytes());
  } catch (error) {
    head = null;
    byId("notice").textContent = `The face cannot be drawn here: ${error.message}`;
    throw error;
  }
  byId("notice").textContent = "";
  choose(data.chosen.filter((name) => (head.names || []).includes(name)));
  document.documentElement.dataset.ready = "true";
}

// For the console, and for whoever embeds the page.
window.sedtalker = {
  play: () => clock.play(),
  pause: () => clock.pause(),
  seek: (time) => clock.seek(time),
  time: () => clock.time,
  shown: () => shown,
  weight: (name) => head.influences[head.names.indexOf(name)],
};

const started = start();
