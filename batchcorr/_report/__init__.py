"""One page to show: what the data allow, what was done to them, and what came of it.

`matrices` finds what is compared, `points`, `features` and `words` turn it into what is
shown, `page` fills the template and `report` writes it.
"""

from __future__ import annotations
