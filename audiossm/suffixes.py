"""What the files are called that hold audio which can be read."""

__all__ = ["MEDIA", "PLAIN"]

# read by our own code and by libsndfile
PLAIN = frozenset(
    ".aif .aifc .aiff .au .caf .flac .mp3 .oga .ogg .opus .rf64 .w64 .wav .wave".split()
)
# read by FFmpeg's code, with the extra "media"
MEDIA = frozenset(
    ".3gp .aac .ac3 .amr .avi .flv .m4a .m4b .m4v .mka .mkv .mov .mp4 .mpeg .mpg .mts .ts .webm "
    ".wma .wmv".split()
)
