// Cheaper drawing, in steps, for machines that draw slowly. A GPU needs none of them; without one, drawing the whole
// face takes half a second.
"use strict";

const SLOW = 45; // ms from picture to picture, in the median, above which the next step is taken
const PACE = 12; // pictures of the median
const PAUSE = 2000; // ms after which an interval says nothing, as after another tab

const STEPS = [
  () => {
    dropShadows();
    setRatio(1);
  },
  () => {
    simplifyMaterials();
    setRatio(0.75);
  },
  () => setRatio(0.5),
];
const pace = { last: 0, intervals: [], step: 0 };

// To be called when a picture is drawn.
function keepPace(now) {
  const interval = now - pace.last;
  pace.last = now;
  if (pace.step === STEPS.length) return;
  pace.intervals.push(interval);
  if (interval > PAUSE) pace.intervals.length = 0;
  if (pace.intervals.length < PACE) return;
  const median = pace.intervals.sort((a, b) => a - b)[PACE / 2];
  pace.intervals.length = 0;
  if (median > SLOW) STEPS[pace.step++]();
}

// Whether WebGL runs on the CPU. Then the first steps are taken at once.
function startPace() {
  const gl = head.renderer.getContext();
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  const name = info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "";
  if (/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name)) while (pace.step < 2) STEPS[pace.step++]();
}

function setRatio(ratio) {
  head.ratio = ratio;
  head.resize();
}

function dropShadows() {
  head.scene.traverse((object) => object.isLight && (object.castShadow = false));
}

// Without the maps of bumps and gloss, and without reading textures several times for views from the side.
function simplifyMaterials() {
  for (const { userData } of head.meshes) {
    const material = userData.dressed;
    if (material.map) Object.assign(material.map, { anisotropy: 1, needsUpdate: true });
    Object.assign(material, { normalMap: null, roughnessMap: null, metalnessMap: null, specularIntensity: 1, needsUpdate: true });
  }
}
