"""The tokens of AnyGPT (github.com/OpenMOSS/AnyGPT, m_utils/anything2token.py), under the names it gives them."""

import mio


@mio.hookimpl
def mio_modalities():
    return [
        mio.Modality(
            name="image",
            codebooks=(8192,),
            begin="<soim>",
            end="<eoim>",
            code_token="<👀{}>",
            frames=mio.Frames(minimum=32, maximum=32),
        ),
        mio.Modality(
            name="speech",
            codebooks=(1024,),
            begin="<sosp>",
            end="<eosp>",
            specials=("<-Res->", "<-Ins->"),
            code_token="<🗣\ufe0f{}>",
        ),
        mio.Modality(
            name="music",
            codebooks=(2048,) * 4,
            begin="<somu>",
            end="<eomu>",
            code_token="<🎶{}>",
            layout="frame_major",
        ),
    ]
