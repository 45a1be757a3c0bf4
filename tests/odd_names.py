"""Names that folders have, and that mean something to whoever reads an address, a pattern or a command line."""

NAMES = (  # of folders, as people have them
    "plain",
    "really?",
    "what?timeout=5",
    "a%25b",
    "100%",
    "50% ?#&=",
    "a #1",
    "a;b",
    'it\'s "quoted"',
    "back\\slash",
    "user:password@host",
    "[brackets] {and} $HOME",
    "größer 長い",
    "a+b",
    "two\nlines\tand a tab",
    "no\u00a0break",
)
