// Play an animation as three.js and pixiv's VRM player do, and print what they show: node play.mjs AVATAR [VRMA] TIME...
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

globalThis.self = globalThis;
globalThis.ProgressEvent = class {};
globalThis.createImageBitmap = async () => ({ width: 1, height: 1, close() {} });
console.warn = () => {};
const roots = (process.env.NODE_PATH ?? "").split(path.delimiter);
const load = (name) => {
  const found = createRequire(path.join(roots[0], "x.js")).resolve(name);
  return import(pathToFileURL(found.replace(/three\.cjs$/, "three.module.js").replace(/\.cjs$/, ".module.js")));
};
const THREE = await load("three");
const { GLTFLoader } = await load("three/examples/jsm/loaders/GLTFLoader.js");
const { MeshoptDecoder } = await load("three/examples/jsm/libs/meshopt_decoder.module.js");
const files = process.argv.slice(2).filter((word) => Number.isNaN(Number(word)));
const times = process.argv.slice(2).filter((word) => !Number.isNaN(Number(word))).map(Number);
const plugins = [];
let createClip;
if (files.length > 1) {
  const { VRMLoaderPlugin } = await load("@pixiv/three-vrm");
  const animations = await load("@pixiv/three-vrm-animation");
  plugins.push((parser) => new VRMLoaderPlugin(parser), (parser) => new animations.VRMAnimationLoaderPlugin(parser));
  createClip = animations.createVRMAnimationClip;
}
const read = (file) => {
  const loader = new GLTFLoader();
  loader.setMeshoptDecoder(MeshoptDecoder);
  plugins.forEach((plugin) => loader.register(plugin));
  const data = fs.readFileSync(file);
  return loader.parseAsync(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength), "");
};
const first = await read(files[0]);
const vrm = first.userData.vrm;
const clip = vrm ? createClip((await read(files[1])).userData.vrmAnimations[0], vrm) : first.animations.at(-1);
const mixer = new THREE.AnimationMixer(vrm ? vrm.scene : first.scene);
mixer.clipAction(clip).play();
const frames = times.map((time) => {
  mixer.setTime(time);
  if (vrm) {
    vrm.update(0);
    const weights = vrm.expressionManager.expressions.map((one) => [one.expressionName, one.weight]);
    return { weights: Object.fromEntries(weights), head: vrm.humanoid.getNormalizedBoneNode("head").quaternion.toArray() };
  }
  const weights = {};
  let head = null;
  first.scene.traverse((node) => {
    if (node.morphTargetDictionary) {
      for (const [name, index] of Object.entries(node.morphTargetDictionary)) weights[name] ??= node.morphTargetInfluences[index];
    }
    if (node.name.toLowerCase() === "head") head = node.quaternion.toArray();
  });
  return { weights, head };
});
console.log(JSON.stringify({ duration: clip.duration, frames }));
