// What the viewer needs of three.js. README.md says how three.min.js is built from this.
export {
  AdditiveBlending,
  AnimationMixer,
  CanvasTexture,
  CustomToneMapping,
  DirectionalLight,
  HemisphereLight,
  MeshBasicMaterial,
  MeshStandardMaterial,
  PCFShadowMap,
  PerspectiveCamera,
  Scene,
  ShaderChunk,
  SRGBColorSpace,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
export { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
