"""Entry point of the dataparser; apart from the methods' config, which the host imports later."""

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from craym_nerfstudio.data.dataparser import CraymDataParserConfig

craym_data = DataParserSpecification(
    config=CraymDataParserConfig(), description="nerfstudio, Blender or COLMAP data, whichever lies in --data"
)
