// Cheaper drawing, in steps, for machines that draw slowly. A GPU needs none of them; without one, drawing the whole
// face takes half a second.
"use strict";

const SLOW = 45; // ms that a picture takes, in the median, above which the next step is taken
const PACE = 12; // pictures of the median
const PAUSE = 2000; // ms from which on the time says nothing, as after another tab

const STEPS = [
  () => {
    dropShadows();
    blendOnCpu();
    setRatio(1);
  },
  () => {
    simplifyMaterials();
    setRatio(0.75);
  },
  () => setRatio(0.5),
];
const pace = { drawn: null, next: 0, costs: [], step: 0 }; // times in ms

// Whether to draw now. A slow picture is followed by as much time without any, which sound and messages need.
function mayDraw(now) {
  if (pace.drawn !== null) {
    const cost = now - pace.drawn;
    pace.drawn = null;
    if (cost < PAUSE) keepPace(cost, now);
  }
  return now >= pace.next;
}

function keepPace(cost, now) {
  if (cost > SLOW) pace.next = now + cost;
  if (pace.costs.push(cost) < PACE) return;
  const median = pace.costs.sort((a, b) => a - b)[PACE / 2];
  pace.costs.length = 0;
  if (median > SLOW && pace.step < STEPS.length) STEPS[pace.step++]();
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
    Object.assign(material, { normalMap: null, roughnessMap: null, metalnessMap: null, needsUpdate: true });
  }
}

// The shapes are added here instead of in the vertex shader, and only where they move something.
function blendOnCpu() {
  for (const mesh of head.meshes) {
    const { geometry } = mesh;
    const Attribute = (geometry.index ?? geometry.attributes.position).constructor;
    const keys = ["position", "normal"].filter((key) => geometry.attributes[key] && geometry.morphAttributes[key]);
    mesh.userData.blends = keys.map((key) => {
      const base = floatsOf(geometry.attributes[key]);
      const blended = new Attribute(base.slice(), 3);
      geometry.setAttribute(key, blended);
      return { base, blended, shapes: geometry.morphAttributes[key].map((shape) => sparse(floatsOf(shape))) };
    });
    if (!keys.length) continue;
    geometry.morphAttributes = {};
    geometry.dispatchEvent({ type: "dispose" }); // the renderer forgets its texture of the shapes
    mesh.material.needsUpdate = true;
  }
}

function floatsOf(attribute) {
  const values = new Float32Array(attribute.count * 3);
  for (let i = 0; i < attribute.count; i++) values.set([attribute.getX(i), attribute.getY(i), attribute.getZ(i)], 3 * i);
  return values;
}

function sparse(values) {
  const places = Uint32Array.from([...values.keys()].filter((k) => Math.abs(values[k]) > 1e-6));
  return { places, values: Float32Array.from(places, (k) => values[k]) };
}

// To be called when the weights have changed.
function blendMeshes() {
  for (const { morphTargetInfluences, userData } of head.meshes) {
    for (const { base, blended, shapes } of userData.blends || []) {
      const result = blended.array;
      result.set(base);
      shapes.forEach(({ places, values }, k) => {
        const weight = morphTargetInfluences[k];
        if (weight) for (let i = 0; i < places.length; i++) result[places[i]] += weight * values[i];
      });
      blended.needsUpdate = true;
    }
  }
}
