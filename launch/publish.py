"""Sends a model directory to the Hugging Face hub, private unless --public.

    python -m launch.publish out/student OWNER/NAME --dry_run
    python -m launch.publish out/student OWNER/NAME

DIR is what launch.export_model wrote. --dry_run lists what would be sent and asks no network. The
token is that of `hf auth login`, or of the variable HF_TOKEN. A repository that exists must be
private, or public with --public; it gets a commit that replaces its weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_jax.handover import hub
from launch.arguments import OneLine, tool_parser


def listing(found: hub.Contents) -> str:
    """A line for each file that is sent, and one for those that are not."""
    lines = [f"{size:>15,}  {name}" for name, size in found.sent]
    lines.append(f"{found.bytes:>15,}  bytes in {len(found.sent)} files")
    if found.kept:
        lines.append(f"not sent: {', '.join(found.kept)}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None, api: Any = None) -> None:
    """Parses the command line, lists, sends; api: instead of the hub's own."""
    parser = tool_parser("publish", __doc__)
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="directory of a model with its card"
    )
    parser.add_argument("repository", metavar="REPO", help="OWNER/NAME on the hub")
    parser.add_argument(
        "--public", action="store_true", help="the repository is public; default: private"
    )
    parser.add_argument("--dry_run", action="store_true", help="list, and send nothing")
    flags = parser.parse_args(argv)
    with OneLine():
        hub.check_repository(flags.repository)
        print(listing(hub.contents(flags.directory)))
        kind = "public" if flags.public else "private"
        if flags.dry_run:
            print(f"dry run: nothing sent to {flags.repository}, which would be {kind}")
            return
        if api is None:
            import huggingface_hub

            api = huggingface_hub.HfApi(library_name="distill_jax")
        print(hub.publish(api, flags.directory, flags.repository, public=flags.public))


if __name__ == "__main__":
    main()
