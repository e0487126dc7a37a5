"""The replay ring against a literal list of transitions, and rollouts' minibatches."""

import numpy as np
import pytest
import torch

from rlgan.core.buffers import Ring, minibatches


class Feeder:
    """Makes rows of N copies whose observation says (copy, game, row) and keeps every row in a plain list."""

    def __init__(self, copies, stack, groups=1, seed=0, same_step=False):
        self.rng = np.random.default_rng(seed)
        self.copies, self.stack, self.same_step = copies, stack, same_step
        size = copies // groups
        self.groups = [slice(g * size, (g + 1) * size) for g in range(groups)]
        self.rows = [[] for _ in range(copies)]
        self.frame = np.ones(copies, np.int64)
        self.first, self.over = np.ones(copies, bool), np.zeros(copies, bool)
        self.history = [[] for _ in range(copies)]

    def next(self):
        row = {}
        fields = {k: [] for k in ("obs", "first", "action", "reward", "terminated", "truncated", "valid", "final_obs")}
        for i in range(self.copies):
            if self.first[i]:
                self.history[i] = []
            self.history[i].append(self.frame[i])
            stacked = ([0] * self.stack + self.history[i])[-self.stack :]
            invalid = bool(self.over[i]) and not self.same_step
            terminated = not invalid and self.rng.random() < 0.1
            truncated = not invalid and not terminated and self.rng.random() < 0.1
            final = ([0] * self.stack + self.history[i] + [self.frame[i] + 1])[-self.stack :]
            item = dict(
                obs=stacked,
                first=bool(self.first[i]),
                action=int(self.rng.integers(9)),
                reward=0.0 if invalid else float(self.rng.normal()),
                terminated=terminated,
                truncated=truncated,
                valid=not invalid,
                final_obs=final,
            )
            self.rows[i].append(item)
            for name, value in item.items():
                fields[name].append(value)
            over = terminated or truncated
            self.frame[i] += 2 if over and self.same_step else 1
            self.first[i] = over if self.same_step else invalid
            self.over[i] = over
        obs = torch.tensor(fields.pop("obs"), dtype=torch.int32)
        final = torch.tensor(fields.pop("final_obs"), dtype=torch.int32)
        row["obs"] = obs[..., None].expand(-1, -1, 2).clone() if self.stack > 1 else obs
        if self.same_step:
            row["final_obs"] = final[..., None].expand(-1, -1, 2).clone() if self.stack > 1 else final
        return row | {k: torch.tensor(v) for k, v in fields.items()}


@pytest.mark.parametrize("same_step", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("n", [1, 3])
def test_ring_equals_a_list_of_rows(stack, n, groups, same_step):
    copies, capacity, gamma = 4, 4 * 23, 0.9
    feeder = Feeder(copies, stack, groups, same_step=same_step)
    ring = Ring(capacity, copies, feeder.groups, stack, torch.device("cpu"))
    seen = set()
    for written in range(1, 90):
        row = feeder.next()
        for g, columns in enumerate(feeder.groups):
            ring.write(g, {k: v[columns] for k, v in row.items()})
        if written < 12 or written % 7:
            continue
        batch = ring.draw(3, 32, n, gamma)
        assert batch["obs"].shape[:2] == (3, 32)
        flat = {k: v.flatten(0, 1) for k, v in batch.items()}
        for b in range(96):
            if flat["weight"][b] == 0:
                continue
            index = int(flat["index"][b])
            t, i = divmod(index, copies)
            rows = feeder.rows[i]
            assert rows[t]["valid"]
            assert written - 23 <= t - (stack - 1 if written > 23 else 0) and t + n < written
            total, k = 0.0, 0
            for k in range(n):
                total += gamma**k * rows[t + k]["reward"]
                if rows[t + k]["terminated"] or rows[t + k]["truncated"]:
                    break
            end = rows[t + k]
            assert abs(total - float(flat["reward"][b])) < 1e-5
            assert abs(float(flat["discount"][b]) - (0 if end["terminated"] else gamma ** (k + 1))) < 1e-6
            assert int(flat["action"][b]) == rows[t]["action"]
            ended = end["terminated"] or end["truncated"]
            following = end["final_obs"] if same_step and ended else rows[t + k + 1]["obs"]
            shown = (lambda x: x[:, 0]) if stack > 1 else (lambda x: x)
            assert shown(flat["obs"][b]).tolist() == rows[t]["obs"]
            assert shown(flat["next_obs"][b]).tolist() == following
            seen.add((i, t))
    assert len(seen) > 150


def test_every_start_is_drawn_equally_often():
    feeder = Feeder(2, 1)
    ring = Ring(40, 2, feeder.groups, 1, torch.device("cpu"))
    for _ in range(33):
        ring.write(0, feeder.next())
    torch.manual_seed(0)
    index = ring.draw(400, 64, 1, 0.9)["index"].flatten()
    valid = [(t, i) for i in range(2) for t in range(13, 32) if feeder.rows[i][t]["valid"]]
    counts = torch.bincount(index, minlength=70)
    assert sorted(counts.nonzero().flatten().tolist()) == sorted(t * 2 + i for t, i in valid)
    expected = 400 * 64 / len(valid)
    assert (counts[counts > 0] - expected).abs().max() < 6 * expected**0.5


def test_stacked_frames_are_stored_once():
    ring = Ring(1000, 8, [slice(0, 8)], 4, torch.device("cpu"))
    n = 8
    row = {"obs": torch.zeros(n, 4, 84, 84, dtype=torch.uint8), "first": torch.ones(n, dtype=torch.bool)}
    row |= {"action": torch.zeros(n, dtype=torch.int64), "reward": torch.zeros(n)}
    row |= {k: torch.zeros(n, dtype=torch.bool) for k in ("terminated", "truncated", "valid")}
    ring.write(0, row)
    per_row = sum(f.nbytes for f in ring.fields.values()) / 1000
    assert per_row == 7056 + 8 + 4 + 4
    assert per_row * 1e6 <= 7.2e9


def test_pieces_restore_a_ring_bit_for_bit():
    feeder = Feeder(4, 4)
    ring = Ring(4 * 10, 4, feeder.groups, 4, torch.device("cpu"))
    saved, other, mark = [], Ring(4 * 10, 4, feeder.groups, 4, torch.device("cpu")), 0
    for t in range(1, 38):
        ring.write(0, feeder.next())
        if t % 6 == 0:
            saved += [(first, {k: v.clone() for k, v in rows.items()}) for first, rows in ring.pieces(mark, 300)]
            mark = ring.written[0]
    saved += list(ring.pieces(mark, 300))
    other.load_state_dict(ring.state_dict())
    for first, rows in saved:
        other.restore(first, rows)
    assert other.written == ring.written
    for name, field in ring.fields.items():
        assert torch.equal(field, other.fields[name]), name


def test_minibatches_visit_every_valid_row_and_no_other():
    torch.manual_seed(0)
    valid = torch.rand(16, 8) < 0.7
    fields = {"reward": torch.arange(128.0).view(16, 8), "valid": valid}
    batches = list(minibatches(fields, 32, 3))
    assert len(batches) == 12
    for epoch in range(3):
        seen = torch.cat([b["reward"] for b in batches[4 * epoch : 4 * epoch + 4]]).long()
        assert valid.flatten()[seen].all()
        assert set(seen.tolist()) == set(valid.flatten().nonzero().flatten().tolist())
        # rows that come twice are spread evenly
        assert torch.bincount(seen).max() <= 2
