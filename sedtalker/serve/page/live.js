// The live page: microphone and WebSocket, takes, and the editor of the emotion track. The viewer draws.
"use strict";

const FPS = data.fps;
const COUNT = data.names.length;
const PING = 10000; // ms
const HISTORY = Math.round(data.duration * FPS); // frames that the lanes show
posterior = new Uint8Array(HISTORY * data.labels.length);
intensity = new Uint8Array(HISTORY);
const say = (text, wrong = false) => {
  byId("status").textContent = text;
  byId("status").classList.toggle("wrong", wrong);
};

// The picture: rows of weights with the time at which they are due.

const rest = () => ({ weights: new Float32Array(COUNT), head: [0, 0, 0], posterior: null, intensity: 0 });
const live = {
  on: true,
  queue: [], // { due: ms, at: s of the utterance or null, weights, head, posterior, intensity }
  shown: rest(),
  fresh: [], // rows that the lanes do not show yet
  posterior, // of the last HISTORY frames, as the lanes show them
  intensity,
  values: new Float32Array(HISTORY * COUNT),
  start: 0, // ms, at which the utterance's first sample was recorded
  delay: 0, // ms between a sound and its picture
  clock: null, // ms, of the resting frames' time zero
  drawn: null, // the pose of the last picture
  draw(now) {
    const pose = poseNow();
    if (pose === live.drawn || !mayDraw(now)) return;
    live.drawn = pose;
    apply(pose.weights, pose.head);
    head.renderer.render(head.scene, head.camera);
    pace.drawn = now;
  },
};

function enqueue(message, due) {
  const first = due(0);
  while (live.queue.length && live.queue[live.queue.length - 1].due >= first) live.queue.pop(); // they are replaced
  message.weights.forEach((weights, i) => {
    const [head, posterior, intensity] = [message.head[i], message.posterior[i], message.intensity[i]];
    const at = message.state === "speaking" ? message.start + i / message.fps : null;
    live.queue.push({ due: due(i), at, weights, head, posterior, intensity });
  });
  if (live.queue.length > 60 * FPS) live.queue.splice(0, live.queue.length - 60 * FPS);
}

const EARLY = 300; // ms before or after their time at which frames of rest can arrive
function receiveFrames(message) {
  const now = performance.now();
  const step = 1000 / message.fps;
  const start = message.start * 1000;
  if (message.type === "interrupted") {
    live.queue.length = 0;
    live.clock = null;
    enqueue(message, (i) => now + i * step);
  } else if (message.state === "speaking") {
    live.clock = null;
    const end = start + message.weights.length * step;
    const needed = now - live.start - end + step;
    live.delay = Math.max(needed, live.delay - 0.02 * (live.delay - needed)); // a late message delays the next seconds only
    enqueue(message, (i) => live.start + start + i * step + live.delay);
  } else {
    const due = live.clock === null ? NaN : live.clock + start;
    if (!(Math.abs(due - now) < EARLY)) {
      // The first ones, or those for which the page had no time: after the frames of the last utterance.
      live.queue = live.queue.filter((row) => row.at !== null);
      const spoken = live.queue.length ? live.queue[live.queue.length - 1].due + step : 0;
      live.clock = Math.max(now + 20, spoken) - start;
    }
    enqueue(message, (i) => live.clock + start + i * step);
  }
}

// The row that is due now, between its neighbours in time.
function poseNow() {
  const { queue } = live;
  const now = performance.now();
  let passed = 0;
  while (passed < queue.length && queue[passed].due <= now) passed++;
  if (passed) {
    live.shown = queue[passed - 1];
    if (passed > 1) queue.splice(0, passed - 1);
  }
  const [before, after] = queue;
  if (!before || !after || before !== live.shown) return live.shown;
  const share = clamp((now - before.due) / Math.max(after.due - before.due, 1), 0, 1);
  const mix = (a, b) => a + (b - a) * share;
  return {
    ...before,
    weights: before.weights.map((value, k) => mix(value, after.weights[k])),
    head: before.head.map((value, k) => mix(value, after.head[k])),
  };
}

function apply(weights, degrees) {
  for (const mesh of head.meshes) {
    const places = mesh.morphTargetDictionary || {};
    for (const name in places) mesh.morphTargetInfluences[places[name]] = weights[head.columns[name]] || 0;
  }
  const [pitch, yaw, roll] = degrees.map((value) => (value * Math.PI) / 180);
  head.joint?.rotation.set(pitch, yaw, roll, "YXZ");
  head.influences = weights;
  blendMeshes();
}

function takeOver() {
  head.names = data.names;
  head.columns = Object.fromEntries(data.names.map((name, k) => [name, k]));
  head.values = live.values;
  head.joint = head.scene.getObjectByName("head");
  head.draw = (time) => {
    if (live.on) live.drawn = null; // `tick` draws again
    if (live.on || !take.current) return;
    const { weights, head: degrees, fps } = take.current;
    apply(rowAt(weights, COUNT, time * fps - 0.5), Array.from(rowAt(degrees, 3, time * fps - 0.5)));
    head.renderer.render(head.scene, head.camera);
  };
  startPace();
  choose(data.chosen);
  requestAnimationFrame(tick);
}

function rowAt(values, width, place) {
  const last = values.length / width - 1;
  const at = clamp(place, 0, last);
  const before = Math.floor(at);
  const after = Math.min(before + 1, last);
  const row = new Float32Array(width);
  for (let k = 0; k < width; k++) {
    row[k] = values[before * width + k] * (1 - at + before) + values[after * width + k] * (at - before);
  }
  return row;
}

const PAINT = 125; // ms between pictures of the lanes, at least; four pictures of the face on a slow machine
let painted = 0;
let noted = 0;
let pictures = 0; // of the face since the lanes were painted
function tick(now) {
  requestAnimationFrame(tick);
  if (!live.on) return;
  const frames = Math.min(Math.floor(((now - noted) / 1000) * FPS + 0.05), HISTORY); // a slow machine repeats them
  if (frames) noted = frames < HISTORY ? noted + (frames / FPS) * 1000 : now;
  for (let i = 0; i < frames; i++) live.fresh.push(live.shown);
  live.draw(now);
  if (now - painted < PAINT || ++pictures < 4) return;
  painted = now;
  pictures = 0;
  showHistory();
}

function showHistory() {
  const rows = live.fresh.splice(0).slice(-HISTORY);
  const labels = data.labels.length;
  const first = HISTORY - rows.length;
  live.posterior.copyWithin(0, rows.length * labels);
  live.intensity.copyWithin(0, rows.length);
  live.values.copyWithin(0, rows.length * COUNT);
  rows.forEach((row, i) => {
    live.values.set(row.weights, (first + i) * COUNT);
    for (let k = 0; k < labels; k++) live.posterior[(first + i) * labels + k] = 255 * (row.posterior?.[k] ?? 0);
    live.intensity[first + i] = 255 * row.intensity;
  });
  clock.own = data.duration;
  for (const lane of lanes) lane.repaint();
  showDelay();
}

// The time from the microphone to the picture, as measured in this utterance.
function showDelay() {
  if (connection.state !== "speaking" || !live.delay) return;
  const text = `${Math.round(live.delay / 10) * 10} ms from microphone to picture`;
  if (byId("subtitle").textContent !== text) byId("subtitle").textContent = text;
}

// The time by which the model follows the sound.
function showLatency() {
  byId("subtitle").textContent = `${Math.round(connection.latency * 1000)} ms behind the sound`;
}

// The connection.

const connection = { socket: null, ready: false, latency: 0, state: "", retry: 500, utterances: 0, closed: "" };
const context = new AudioContext();

function send(message) {
  if (connection.socket?.readyState === WebSocket.OPEN) connection.socket.send(JSON.stringify(message));
}

function connectSocket() {
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.search = "";
  const socket = (connection.socket = new WebSocket(url));
  socket.onopen = () => {
    const lookAhead = Number(byId("look-ahead").value) || null;
    send({ type: "start", sampleRate: Math.round(context.sampleRate), encoding: "pcm16", format: "json", fps: FPS, resting: true, lookAhead });
  };
  socket.onmessage = ({ data: text }) => receive(JSON.parse(text));
  socket.onclose = ({ reason }) => {
    connection.ready = false;
    setState("lost");
    stopTalking();
    if (reason) say((connection.closed = `The server closed the session: ${reason}.`), true);
    setTimeout(connectSocket, connection.retry);
    connection.retry = clamp(connection.retry * 2, 500, 15000);
  };
}

function receive(message) {
  if (message.weights) receiveFrames(message);
  if (message.type === "ready") {
    connection.ready = true;
    connection.retry = 500;
    connection.latency = message.latency;
    if (connection.closed && byId("status").textContent === connection.closed) say(`${connection.closed} Connected again.`);
    connection.closed = "";
    if (live.on) showLatency();
    sendHand();
    if (byId("listen").getAttribute("aria-pressed") === "true") send({ type: "listen", on: true });
    setState("idle");
  } else if (message.type === "error") {
    say(message.message, true);
  } else if (message.state) {
    setState(message.state);
  }
}

const STATES = { idle: "Ready", speaking: "Speaking", listening: "Listening", lost: "No connection" };
function setState(state) {
  if (state === connection.state) return;
  connection.state = state;
  byId("state").dataset.state = state;
  byId("state").textContent = live.on ? STATES[state] || state : "";
}

setInterval(() => send({ type: "ping", id: Math.round(performance.now()) }), PING);

// The microphone.

const microphone = { node: null, talking: false, pieces: [], samples: 0 };

async function openMicrophone() {
  await context.resume();
  if (microphone.node) return;
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true } });
  await context.audioWorklet.addModule("page/capture.js");
  microphone.node = new AudioWorkletNode(context, "capture", { numberOfInputs: 1, numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  microphone.node.port.onmessage = ({ data: buffer }) => record(buffer);
  context.createMediaStreamSource(stream).connect(microphone.node);
}

function record(buffer) {
  if (!microphone.talking || connection.socket?.readyState !== WebSocket.OPEN) return;
  if (!microphone.pieces.length) {
    // The first piece of the utterance: sounds before it are not animated.
    live.start = performance.now() - (buffer.byteLength / 2 / context.sampleRate) * 1000;
    live.delay = 0;
  }
  if (microphone.samples < 120 * context.sampleRate) microphone.pieces.push(new Int16Array(buffer)); // the limit of a take
  microphone.samples += buffer.byteLength / 2;
  if (connection.socket.bufferedAmount < 1 << 18) connection.socket.send(buffer);
}

async function startTalking() {
  if (microphone.talking || !connection.ready) return;
  goLive();
  setListening(false); // the face cannot listen to the voice that it speaks with
  microphone.talking = true; // before the wait, so that a release during it is seen
  microphone.pieces = [];
  microphone.samples = 0;
  microphone.node?.port.postMessage("restart");
  byId("talk").setAttribute("aria-pressed", "true");
  try {
    await openMicrophone();
    say("");
  } catch (error) {
    stopTalking();
    say(`No microphone: ${error.message}. Allow it, or choose a recording.`, true);
  }
}

function stopTalking() {
  if (!microphone.talking) return;
  microphone.talking = false;
  byId("talk").setAttribute("aria-pressed", "false");
  byId("open").setAttribute("aria-pressed", "false");
  send({ type: "end" });
  byId("take").hidden = !microphone.pieces.length && !take.current;
}

function interrupt() {
  const at = (performance.now() - live.start - live.delay) / 1000;
  microphone.talking = false;
  byId("talk").setAttribute("aria-pressed", "false");
  byId("open").setAttribute("aria-pressed", "false");
  byId("take").hidden = !microphone.pieces.length && !take.current;
  if (live.on) send({ type: "interrupt", ...(at < 3600 ? { at } : {}) });
  else clock.pause();
}

function setListening(on) {
  if (on === (byId("listen").getAttribute("aria-pressed") === "true")) return;
  byId("listen").setAttribute("aria-pressed", on);
  if (on) {
    stopTalking();
    goLive();
  }
  send({ type: "listen", on });
}

// The emotion by hand.

function sendHand() {
  const emotion = byId("hand-emotion").value || null;
  for (const id of ["hand-intensity", "hand-share"]) byId(id).disabled = !emotion;
  send({ type: "emotion", emotion, intensity: Number(byId("hand-intensity").value), share: Number(byId("hand-share").value) });
}

// Takes.

const take = { current: null, id: null, edited: [], selected: -1, before: [], sequence: 0, voice: [] };
const floats = (text) => new Float32Array(bytesOf(text).buffer);

async function post(url, body) {
  const response = await fetch(url, { method: "POST", body });
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function addTake(blob) {
  say("Animating the recording");
  try {
    const answer = await post(`takes?face=${data.face}`, blob);
    microphone.pieces = [];
    take.id = answer.id;
    take.before = [];
    take.voice = answer.segments;
    if (audio.src) URL.revokeObjectURL(audio.src);
    audio.src = URL.createObjectURL(blob);
    clock.sound = true;
    showTake(answer);
    clock.seek(0);
    select(answer.segments.length === 1 ? 0 : -1);
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

function showTake(answer) {
  live.on = false;
  take.current = { ...answer, weights: floats(answer.weights), head: floats(answer.head) };
  take.edited = answer.segments;
  Object.assign(data, { duration: answer.duration, fps: answer.fps, trackRate: answer.trackRate, segments: answer.segments, uncertain: answer.uncertain });
  clock.duration = answer.duration;
  posterior = Uint8Array.from(floats(answer.posterior), (value) => 255 * value);
  intensity = Uint8Array.from(floats(answer.intensity), (value) => 255 * value);
  head.values = take.current.weights;
  live.drawn = null;
  byId("scrub").max = answer.duration;
  byId("subtitle").textContent = `${answer.duration.toFixed(1)} s · ${answer.fps} fps`;
  for (const id of ["transport", "take", "editor", "back"]) byId(id).hidden = false;
  for (const id of ["hand", "edit"]) byId(id).hidden = true;
  byId("emotion").classList.add("editing");
  for (const link of byId("save").children) {
    link.href = `takes/${take.id}/take.${link.dataset.form}`;
    link.download = `take.${link.dataset.form}`;
  }
  setState("");
  listSegments();
  resizeAll();
}

function goLive() {
  if (live.on) return;
  clock.pause();
  live.on = true;
  live.queue.length = 0;
  live.clock = null;
  ({ posterior, intensity } = live);
  head.values = live.values;
  Object.assign(data, { duration: HISTORY / FPS, fps: FPS, trackRate: FPS, segments: [], uncertain: [] });
  clock.sound = false;
  clock.duration = data.duration;
  for (const id of ["transport", "editor", "back"]) byId(id).hidden = true;
  for (const id of ["hand", "edit"]) byId(id).hidden = false;
  connection.state = "";
  setState("idle");
  showLatency();
  byId("emotion").classList.remove("editing");
  resizeAll();
}

function resizeAll() {
  head.resize();
  for (const lane of lanes) lane.resize();
  stale = true;
}

// Segments of the take with one of them replaced; the others give way.
function overlay(segments, next) {
  const others = segments.flatMap((s) => {
    const parts = [
      { ...s, end: Math.min(s.end, next.start) },
      { ...s, start: Math.max(s.start, next.end) },
    ];
    return parts.filter((part) => part.end - part.start > 0.02);
  });
  return [...others, next].sort((a, b) => a.start - b.start);
}

function edit(segments, selected = take.selected) {
  take.before.push(take.edited);
  setSegments(segments, selected);
}

function setSegments(segments, selected) {
  take.edited = data.segments = segments;
  take.selected = clamp(selected, -1, segments.length - 1);
  byId("undo").disabled = !take.before.length;
  listSegments();
  lanes[0].repaint();
  animateAgain();
}

async function animateAgain() {
  const mine = ++take.sequence;
  await new Promise((done) => setTimeout(done, 120)); // several changes in a row are one
  if (mine !== take.sequence) return;
  const keys = ["start", "end", "emotion", "intensity"];
  const segments = take.edited.map((s) => Object.fromEntries(keys.map((key) => [key, s[key]])));
  try {
    const answer = await post(`takes/${take.id}`, JSON.stringify({ segments, share: Number(byId("take-share").value), face: data.face }));
    if (mine !== take.sequence || live.on) return;
    showTake({ ...answer, segments: take.edited, sequence: mine });
    say("Animated again.");
  } catch (error) {
    say(error.message, true);
  }
}

function select(index) {
  take.selected = index;
  listSegments();
}

function listSegments() {
  const focused = document.activeElement?.closest("#segments li");
  const place = focused ? [...byId("segments").children].indexOf(focused) : -1;
  byId("segments").replaceChildren(
    ...take.edited.map((segment, i) => {
      const button = document.createElement("button");
      const swatch = document.createElement("i");
      swatch.style.background = data.colors[data.labels.indexOf(segment.emotion)];
      const times = Object.assign(document.createElement("span"), { textContent: `${segment.start.toFixed(1)} to ${segment.end.toFixed(1)} s` });
      button.append(swatch, `${segment.emotion} `, times);
      button.setAttribute("aria-pressed", i === take.selected);
      button.addEventListener("click", () => {
        select(i);
        clock.seek(segment.start);
      });
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
  if (place >= 0) byId("segments").children[place]?.firstChild.focus();
  const segment = take.edited[take.selected];
  byId("segment").disabled = !segment;
  if (!segment) return;
  byId("segment-emotion").value = segment.emotion;
  byId("segment-intensity").value = segment.intensity;
  byId("segment-intensity").nextElementSibling.value = percent(segment.intensity);
  for (const key of ["start", "end"]) {
    const field = byId(`segment-${key}`);
    if (document.activeElement !== field) field.value = segment[key].toFixed(2);
    field.max = data.duration.toFixed(2);
  }
}

const percent = (value) => `${Math.round(value * 100)}%`;

function changeSegment(change) {
  const segment = take.edited[take.selected];
  if (!segment) return;
  const next = { ...segment, ...change };
  next.start = clamp(next.start, 0, data.duration);
  next.end = clamp(next.end, 0, data.duration);
  if (!(next.end - next.start >= 0.02)) return;
  if (next.emotion === "neutral") next.intensity = 0;
  else if (segment.emotion === "neutral" && change.emotion) next.intensity = 0.8;
  const rest = take.edited.filter((_, i) => i !== take.selected);
  const segments = overlay(rest, next);
  edit(segments, segments.indexOf(next));
}

// Dragging on the row of segments: an edge moves, the middle selects.
function connectDragging() {
  const canvas = byId("emotion");
  let drag = null;
  const timeOf = (event) => clamp((event.offsetX / canvas.clientWidth) * data.duration, 0, data.duration);
  canvas.addEventListener(
    "pointerdown",
    (event) => {
      if (live.on || event.offsetY > NAMES_HEIGHT) return;
      event.stopImmediatePropagation();
      canvas.setPointerCapture(event.pointerId);
      const time = timeOf(event);
      const near = (8 / canvas.clientWidth) * data.duration;
      let index = take.edited.findIndex((s) => time >= s.start && time < s.end);
      if (index < 0) return;
      let segment = take.edited[index];
      let key = time - segment.start < near ? "start" : segment.end - time < near ? "end" : null;
      if (key === "start" && index > 0) [index, key] = [index - 1, "end"]; // the edge belongs to the one before
      select(index);
      if (key) drag = { key, time };
    },
    true,
  );
  canvas.addEventListener(
    "pointermove",
    (event) => {
      if (live.on || (!drag && event.offsetY > NAMES_HEIGHT)) return;
      event.stopImmediatePropagation();
      if (drag) drag.time = timeOf(event);
    },
    true,
  );
  canvas.addEventListener("pointerup", () => {
    if (!drag) return;
    const { key, time } = drag;
    drag = null;
    const segment = take.edited[take.selected];
    const next = take.edited[take.selected + 1];
    if (key === "end" && next && time < segment.end) {
      const moved = { ...next, start: Math.max(time, segment.start + 0.02) };
      const segments = take.edited.map((s, i) => (i === take.selected ? { ...s, end: moved.start } : i === take.selected + 1 ? moved : s));
      edit(segments);
    } else changeSegment({ [key]: time });
  });
}

function wavOf(pieces, rate) {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const text = (place, word) => [...word].forEach((c, i) => view.setUint8(place + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * length, true);
  let place = 44;
  for (const piece of pieces) for (const sample of piece) view.setInt16((place += 2) - 2, sample, true);
  return new Blob([view.buffer], { type: "audio/wav" });
}

// Controls.

function connectControls() {
  byId("transport").hidden = true;
  byId("emotion").setAttribute("aria-label", "Emotion over time. The segments of a take can be dragged here, or edited in the list");
  for (const label of data.labels) {
    byId("hand-emotion").append(new Option(label, label));
    byId("segment-emotion").append(new Option(label, label));
  }
  for (const input of document.querySelectorAll(".field input[type=range]")) {
    input.addEventListener("input", () => (input.nextElementSibling.value = percent(input.value)));
  }
  for (const id of ["hand-emotion", "hand-intensity", "hand-share"]) byId(id).addEventListener("input", sendHand);

  const talk = byId("talk");
  talk.addEventListener("pointerdown", (event) => {
    talk.setPointerCapture(event.pointerId);
    startTalking();
  });
  for (const name of ["pointerup", "pointercancel"]) talk.addEventListener(name, stopTalking);
  talk.addEventListener("contextmenu", (event) => event.preventDefault());
  const keys = (event) => event.key === "t" || (event.target === talk && [" ", "Enter"].includes(event.key));
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") interrupt();
    if (!keys(event) || event.repeat || event.ctrlKey || event.metaKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
    event.preventDefault();
    startTalking();
  });
  addEventListener("keyup", (event) => keys(event) && byId("open").getAttribute("aria-pressed") !== "true" && stopTalking());
  byId("open").addEventListener("click", ({ target }) => {
    const on = target.getAttribute("aria-pressed") !== "true";
    if (on) startTalking();
    else stopTalking();
    target.setAttribute("aria-pressed", on && microphone.talking);
  });
  byId("listen").addEventListener("click", ({ target }) => setListening(target.getAttribute("aria-pressed") !== "true"));
  addEventListener("blur", () => byId("open").getAttribute("aria-pressed") !== "true" && stopTalking()); // no release comes
  byId("interrupt").addEventListener("click", interrupt);
  const lookAhead = byId("look-ahead");
  lookAhead.append(...data.lookAheads.map((ms) => new Option(`${ms} ms`, ms, ms === data.lookAhead, ms === data.lookAhead)));
  lookAhead.closest("label").hidden = !data.lookAheads.length;
  lookAhead.addEventListener("change", () => {
    connection.retry = 0; // a new session
    connection.socket.close();
  });
  byId("face").addEventListener("change", ({ target }) => (location.search = `?face=${target.value}`));

  byId("file").addEventListener("change", ({ target }) => target.files[0] && addTake(target.files[0]));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop").classList.add("over");
  });
  for (const name of ["dragleave", "drop"]) addEventListener(name, () => byId("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer.files[0];
    if (file) addTake(file);
  });

  byId("edit").addEventListener("click", () => {
    if (microphone.pieces.length) addTake(wavOf(microphone.pieces, Math.round(context.sampleRate)));
    else if (take.current) showTake({ ...take.current, ...encodedTake() });
  });
  byId("back").addEventListener("click", goLive);
  byId("segment-emotion").addEventListener("change", ({ target }) => changeSegment({ emotion: target.value }));
  byId("segment-intensity").addEventListener("change", ({ target }) => changeSegment({ intensity: Number(target.value) }));
  for (const key of ["start", "end"]) {
    byId(`segment-${key}`).addEventListener("change", ({ target }) => changeSegment({ [key]: Number(target.value) }));
  }
  byId("add-segment").addEventListener("click", () => {
    const start = Math.min(clock.time, data.duration - 0.5);
    const next = { start: Math.max(start, 0), end: Math.min(start + 1, data.duration), emotion: "happy", intensity: 0.8 };
    const segments = overlay(take.edited, next);
    edit(segments, segments.indexOf(next));
  });
  byId("undo").addEventListener("click", () => setSegments(take.before.pop(), -1));
  byId("voice-only").addEventListener("click", () => edit(take.voice, -1));
  byId("take-share").addEventListener("change", animateAgain);
  connectDragging();
}

// The take as the server sent it, for showing it again.
function encodedTake() {
  const { posterior: p, intensity: i } = take.current;
  return { posterior: p, intensity: i, segments: take.edited, weights: encode(take.current.weights), head: encode(take.current.head) };
}

function encode(values) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

connectControls();
started.then(takeOver).catch(() => {});
connectSocket();
Object.assign(window.sedtalker, { live, connection, take, weight: (name) => head.influences[head.columns[name]] });
