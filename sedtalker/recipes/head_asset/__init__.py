"""Steps of building the head asset; `recipe` documents the build."""
