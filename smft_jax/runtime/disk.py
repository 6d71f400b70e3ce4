"""Tells a full disk from other errors."""

from __future__ import annotations

import errno

# Codes of an OSError when the disk, a quota, or a file-size limit is reached.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
