"""Callers at the pace of speech: what they count and time, and what a load test makes of it."""

import asyncio
import json

import pytest

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.errors import ServiceError
from audiossm.streaming import Session
from audiossm_apps.cli import main
from audiossm_apps.clips import Clip
from audiossm_apps.load import Call, Load, Tally
from audiossm_apps.loadtest import make_report, rank, transcribe_clip
from live_service import run_live
from tiny_model import SPEECH, make_transcriber, read_speech

CLIP = Clip("river", read_speech()[:16000].copy())
EXPECTED = {"river": transcribe_clip(make_transcriber(), CLIP)}


def judge(tally: Tally, overload: bool = False, max_p99_ms: float = 5000.0) -> list[str]:
    report = make_report(tally, EXPECTED, overload=overload, max_p99_ms=max_p99_ms)
    assert report["passed"] == (not report["problems"])
    return report["problems"]


def test_callers_are_told_every_word_and_when():
    async def test(service, address):
        tally = await Load(address, [CLIP], 100, None).run(3, 1.0)
        assert len(tally.calls) >= 3 and tally.most_at_once > 1
        assert all((call.words, call.written) == EXPECTED["river"] for call in tally.calls)
        assert EXPECTED["river"][0] and not judge(tally)
        assert len(tally.finals) == len(tally.starts) == len(tally.calls)
        assert len(tally.late) == 10 * len(tally.calls)
        assert tally.partials and min(tally.partials + tally.finals) > 0
        assert not (tally.drops or tally.refusals or tally.rude)

    run_live(test)


def test_who_is_refused_comes_again_and_is_counted():
    async def test(service, address):
        tally = await Load(address, [CLIP], 100, None).run(3, 2.0)
        assert tally.refusals and not tally.rude and tally.most_at_once == 1
        assert "refusals" in judge(tally)[0] and not judge(tally, overload=True)

    run_live(test, capacity=1, retry_s=1.0)


def test_a_refusal_without_a_time_to_come_again_is_rude():
    async def test(service, address):
        tally = await Load(address, [CLIP], 100, None).run(3, 1.0)
        assert tally.rude and not tally.refusals
        assert any("without a time" in problem for problem in judge(tally, overload=True))

    run_live(test, capacity=1, retry_s=0.0)


def test_a_call_that_breaks_off_is_counted(monkeypatch):
    async def test(service, address):
        push, left = Session.push, 2

        def fail(session, samples):
            nonlocal left
            left -= 1
            if left == 0:
                raise ValueError("on purpose")
            return push(session, samples)

        monkeypatch.setattr(Session, "push", fail)
        tally = await Load(address, [CLIP], 100, None).run(2, 0.5)
        assert len(tally.drops) == 1 and "on purpose" in tally.drops[0]
        assert any("1 calls broke off" in problem for problem in judge(tally))

    run_live(test)


def test_nobody_there_is_an_error():
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9/v1/stream"):
        asyncio.run(Load("127.0.0.1:9", [CLIP], 100, None).run(2, 0.5))


def make_tally(words: list[str], **fields: object) -> Tally:
    call = Call(CLIP, list(words), [])
    return Tally(**({"calls": [call], "finals": [0.1], "pongs": [0.01]} | fields))


def test_a_report_names_each_problem():
    plain = EXPECTED["river"][0]
    assert judge(make_tally(plain)) == []
    assert judge(make_tally(plain[1:])) == [f"1 of {len(plain)} words lost or wrong"]
    assert judge(make_tally([*plain[:-1], "nonsense"])) == [
        f"1 of {len(plain)} words lost or wrong"
    ]
    assert judge(make_tally(plain, finals=[0.1, 0.4]), max_p99_ms=350) == [
        "finals' p99 400 ms, limit 350"
    ]
    assert judge(make_tally(plain, pongs=[0.5]), max_p99_ms=350) == ["pings' p99 500 ms, limit 350"]
    assert judge(make_tally(plain), overload=True) == ["nobody was refused: that is no overload"]
    assert judge(Tally()) == ["no words came"]


def test_percentiles_are_of_those_measured():
    assert rank([]) == {}
    assert rank([0.002]) == {"p50": 2.0, "p95": 2.0, "p99": 2.0, "max": 2.0}
    assert rank([i / 1000 for i in range(100, 0, -1)]) == {
        "p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0,
    }  # fmt: skip


def test_the_command_starts_a_server_and_reports(tmp_path, capsys):
    model = make_transcriber()
    config = {"recogniser": to_dict(model.config)}
    save_model(tmp_path / "tiny", "recogniser", "", config, model.network.state_dict())
    argv = ["loadtest", str(SPEECH / "bread.flac"), "--streams", "2", "--seconds", "1"]
    argv += ["--model", str(tmp_path / "tiny"), "--capacity", "2", "--max-p99-ms", "20000"]
    code = main([*argv, "--json", str(tmp_path / "load.json")])
    assert code == 0, capsys.readouterr()
    report = json.loads((tmp_path / "load.json").read_text())
    assert report["words"] and not report["words_wrong"] and report["capacity"] == 2
    assert report["server"]["cores"] > 0 and report["client"]["resident_mb"] > 0
    assert capsys.readouterr().out.rstrip().endswith("pass")


def test_the_command_says_when_there_is_no_server(capsys):
    argv = ["loadtest", str(SPEECH / "bread.flac"), "--server", "127.0.0.1:9"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "audiossm_apps.loadtest.load_transcriber", lambda *_, **__: make_transcriber()
        )
        assert main(argv) == 1
    assert "no such service" in capsys.readouterr().err
