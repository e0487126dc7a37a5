"""Who serves whom: greedy matching of all copies at once on the device, and the Hungarian algorithm copy by copy.

The score of a pair is the order's worth at its pickup distance less the value of the driver's cell, so drivers in one
cell are alike. Shapes: n copies, K orders, M drivers, C cells, P distances 0, ..., radius, O cells in reach.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from rlgan.core import capture


class Reach:
    """The cells from which an order can be served.

    ``near`` (C, O) int64 has them for each cell of an origin, nearest first, and C where a cell has fewer than others;
    ``ring`` (O,) int64 their distances; ``distance`` (C, C) int64 those of all cells.
    """

    def __init__(self, distance: Tensor, radius: int, device: torch.device | str) -> None:
        self.cells, self.radius = len(distance), radius
        cells = torch.arange(self.cells).expand(self.cells, -1)
        widths = [max(1, int((distance == far).sum(1).max())) for far in range(radius + 1)]
        rings = [
            cells.masked_fill(distance != far, self.cells).sort(1).values[:, :width] for far, width in enumerate(widths)
        ]
        self.near = torch.cat(rings, 1).to(device)
        self.ring = torch.cat([torch.full((ring.shape[1],), far) for far, ring in enumerate(rings)]).to(device)
        self.distance = distance.to(device)
        self.bounds = [0, *self.ring.bincount(minlength=radius + 1).cumsum(0).tolist()]
        """Where each distance begins among these cells."""

    def between(self, cell: Tensor, other: Tensor) -> Tensor:
        """Distances of cells, of the shape of both."""
        return self.distance.flatten().index_select(0, (cell * self.cells + other).flatten()).view(cell.shape)

    def cheapest(self, price: Tensor) -> Tensor:
        """Least price (n, C + 1) among the cells at each distance of each cell, (P, C, n)."""
        # copies last: whole rows are copied and compared
        around = price.t().contiguous().index_select(0, self.near.t().flatten()).view(len(self.ring), self.cells, -1)
        return torch.stack([around[a:b].amin(0) for a, b in pairwise(self.bounds)])


def greedy(
    reach: Reach,
    worth: Tensor,
    value: Tensor,
    origin: Tensor,
    waiting: Tensor,
    cell: Tensor,
    idle: Tensor,
    least: float,
    window: int,
) -> Tensor:
    """One order after another, that of the best score first; each takes the driver in reach that is best for it.

    Args:
        reach: Which cells an order is served from.
        worth: (n, K, P) of the orders.
        value: (n, C) of the cells.
        origin: (n, K) cells of the orders.
        waiting: (n, K) bool, which can be served.
        cell: (n, M) of the drivers.
        idle: (n, M) bool, who can be sent.
        least: Only pairs with a larger score are matched.
        window: How many waiting orders are looked at; those that came last in their row are left out.

    Returns the driver of each order (n, K), M where it has none. Ties go to the first order and the nearest cell.
    """
    (n, drivers), orders, device = cell.shape, origin.shape[1], cell.device
    if capture.reading_is_free(device):  # days begin and end with few orders
        window = min(window, max(int(waiting.sum(1).max()), 1))
    # seen (n, W): the numbers of the orders that wait, then K, which is no order
    number = torch.arange(orders, device=device).expand(n, -1)
    rank = waiting.cumsum(1)
    at = torch.where(waiting & (rank <= window), rank - 1, window)
    seen = torch.full((n, window + 1), orders, device=device).scatter_(1, at, number)[:, :window]
    first = torch.arange(n, device=device).unsqueeze(1)
    row = first * orders + seen.clamp(max=orders - 1)
    place = origin.flatten().index_select(0, row.flatten()).view(n, window)
    offers = worth.reshape(n * orders, -1).index_select(0, row.flatten()).view(n, window, -1)
    offers = offers.masked_fill_((seen == orders).unsqueeze(2), -torch.inf)
    # the idle drivers of cell c stand in line, the last of them at stop[c], and left[c] of them have not been sent
    by_cell, line = torch.where(idle, cell, reach.cells).sort(dim=1, stable=True)
    left = torch.zeros(n, reach.cells + 1, dtype=torch.int64, device=device)
    left = left.scatter_add_(1, by_cell, torch.ones_like(by_cell))
    stop = left.cumsum(1)
    value = F.pad(value, (0, 1), value=torch.inf)
    price = value.masked_fill(left == 0, torch.inf)
    cheapest = reach.cheapest(price).flatten(1).index_select(1, (place * n + first).flatten()).view(-1, n, window)
    turns = (offers.permute(2, 0, 1) - cheapest).amax(0).argsort(dim=1, descending=True, stable=True)
    place, row = place.gather(1, turns).t().contiguous(), (first * window + turns).t().contiguous()
    offers = offers.flatten(0, 1).index_select(1, reach.ring)
    asked, counts, got = [], [], []
    for turn in range(window):
        cells = reach.near.index_select(0, place[turn])
        score, best = (offers.index_select(0, row[turn]) - price.gather(1, cells)).max(1, keepdim=True)
        chosen, taken = cells.gather(1, best), score > least
        count = left.gather(1, chosen)
        asked.append(chosen)
        counts.append(count)
        got.append(taken)
        count = count - taken.long()
        left.scatter_(1, chosen, count)
        price.scatter_(1, chosen, torch.where(count > 0, value.gather(1, chosen), torch.inf))
    sent = torch.where(torch.cat(got, 1), stop.gather(1, torch.cat(asked, 1)) - torch.cat(counts, 1), drivers)
    found = F.pad(line, (0, 1), value=drivers).gather(1, sent)
    given = torch.full((n, orders + 1), drivers, device=device)
    return given.scatter_(1, seen.gather(1, turns), found)[:, :orders]


def hungarian(
    reach: Reach,
    worth: Tensor,
    value: Tensor,
    origin: Tensor,
    waiting: Tensor,
    cell: Tensor,
    idle: Tensor,
    least: float,
) -> Tensor:
    """The largest sum of scores among the matchings that serve most orders; if ``least`` is 0, among all matchings.

    As `greedy`, but on the CPU, one copy after another, by SciPy's ``linear_sum_assignment``.
    """
    from scipy.optimize import linear_sum_assignment

    distance, found = reach.distance.cpu().numpy(), torch.full(origin.shape, cell.shape[1])
    given = worth.double(), value.double(), origin, waiting, cell, idle
    copies = zip(*(part.cpu().numpy() for part in given), strict=True)
    for i, (worths, values, origins, waits, cells, can) in enumerate(copies):
        orders, free = waits.nonzero()[0], can.nonzero()[0]
        pickup = distance[origins[orders]][:, cells[free]]
        reached = pickup <= reach.radius
        score = worths[orders[:, None], pickup.clip(max=reach.radius)] - values[cells[free]]
        reached &= score > least
        if not reached.any():
            continue
        low, high = score[reached].min(), score[reached].max()
        # one forbidden pair more costs more than all others can bring
        score[~reached] = 0.0 if least == 0 else low - (high - low + 1.0) * min(score.shape)
        a, b = linear_sum_assignment(score, maximize=True)
        kept = reached[a, b]
        found[i, orders[a[kept]]] = torch.from_numpy(free[b[kept]])
    return found.to(cell.device)
