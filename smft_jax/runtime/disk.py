"""Tells a full disk from other errors."""

from __future__ import annotations

import errno

# What the errno is where there is no room: on the disk, in a quota, or below a
# limit on the size of files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
