"""Rendering: camera -> scene -> geometry -> raster -> paint (shade, shadow) -> strip, captions, views -> video.

`soft.SoftRenderer` draws a face from its vertices, `animation_video.render_animation` writes a video of an animation.
`config.RenderConfig` holds the settings and their defaults.
"""
