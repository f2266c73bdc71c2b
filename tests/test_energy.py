"""Energy from planted counters: those of packages and memory, once each, also where they begin anew."""

import pytest

from dlrosetta import energy


@pytest.fixture
def powercap(tmp_path):
    def write(zone, name, microjoules, most=262143328850):
        folder = tmp_path / zone
        folder.mkdir(exist_ok=True)
        for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
            (folder / file).write_text(f"{value}\n", encoding="ascii")

    write("intel-rapl:0", "package-0", 1_000_000)
    write("intel-rapl:0:0", "core", 900_000)
    write("intel-rapl:0:1", "dram", 100_000)
    write("intel-rapl:1", "package-1", 262143328000)
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path, write


def test_packages_and_memory_count_and_cores_do_not_count_twice(powercap):
    folder, write = powercap
    before = energy.read(folder)
    assert set(before) == {"intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"}
    write("intel-rapl:0", "package-0", 3_500_000)
    write("intel-rapl:0:0", "core", 3_000_000)
    write("intel-rapl:0:1", "dram", 600_000)
    assert energy.joules(before, energy.read(folder)) == pytest.approx(3.0)


def test_a_counter_that_begins_anew(powercap):
    folder, write = powercap
    before = energy.read(folder)
    write("intel-rapl:1", "package-1", 1_000_000)
    assert energy.joules(before, energy.read(folder)) == pytest.approx((262143328850 - 262143328000 + 1_000_000) / 1e6)


def test_a_machine_that_does_not_tell(tmp_path, powercap):
    folder, _ = powercap
    assert energy.read(tmp_path / "none") == {} and energy.joules({}, energy.read(folder)) is None
    (folder / "intel-rapl:0" / "energy_uj").write_text("secret", encoding="ascii")
    assert "intel-rapl:0" not in energy.read(folder)
