// three.min.js is made of this file and three 0.187.0 (MIT, three.LICENSE):
// npm install three@0.187.0 esbuild && npx esbuild three.entry.js --bundle --minify --format=iife --global-name=Three --outfile=three.min.js
export {
  Scene, PerspectiveCamera, WebGLRenderer, BufferGeometry, BufferAttribute, Mesh, MeshStandardMaterial, AmbientLight, DirectionalLight,
  Color, Raycaster, Vector2, Vector3, Box3, LineSegments, LineBasicMaterial, BoxGeometry, EdgesGeometry, DoubleSide,
} from 'three';
export { OrbitControls } from 'three/examples/jsm/controls/OrbitControls.js';
