"""Procedural street scenes: (seed, index) goes in, a picture with exact segments comes out, and nothing is downloaded.

A scene is a small world in metres (x across the street, y up, z along it) seen through a pinhole camera. Everything in
it is a flat polygon, painted far to near. The canvas has four channels, red, green, blue and segment id, and one
`cv2.fillPoly` writes all four, so colour and label cannot disagree by a pixel. Grain, blur and noise come after.
Labels follow Cityscapes (arXiv 1604.01685): lane marks and shadows are road, trunks vegetation; a sign owns its
pole. Segments with fewer than 12 visible pixels become void; fully hidden ones vanish.

In: `draw_scene(seed, index, height=, width=)`. Out: a `Scene` of image (uint8 [H, W, 3] RGB), segments (int32 [H, W],
0 is void) and categories (uint8, an index into `CLASSES` for each segment id); the same bytes for the same arguments.
"""

from panfpn.data.scenes.painter import CLASSES
from panfpn.data.scenes.scene import Scene, draw_scene

__all__ = ["CLASSES", "Scene", "draw_scene"]
