"""What a session tells the network while it speaks is what training told it of such speech."""

import numpy as np
import torch

from audiossm.manifest import Utterance
from audiossm.models import Voice
from audiossm.streaming import Sound
from audiossm.train.recitals import Recitals
from audiossm.train.takes import Take
from audiossm.train.talker import Talker
from audiossm.train.timed_scripts import TimedScript
from tiny_speaker import make_generator, make_speaker

SPEAKER = make_speaker()


def test_a_sentence_is_said_as_it_would_be_learnt(monkeypatch):
    vector = np.random.default_rng(0).normal(size=SPEAKER.config.d_voice).astype(np.float32)
    voice = Voice(name="a", vector=vector, pace=0.25, origin="o", licence="l")
    session = SPEAKER.session(voice=voice)
    told, units, starts = [], [], []
    tell, begin = session.maker.tell, session._begin_unit

    def tell_and_note(text, age=0):
        told.append(tell(text, age)[0, 0])
        return tell(text, age)

    def begin_and_note():
        begun = begin()
        if begun:
            units.append(session.unit)
            starts.append(session.num_frames)
        return begun

    monkeypatch.setattr(session.maker, "tell", tell_and_note)
    monkeypatch.setattr(session, "_begin_unit", begin_and_note)
    events = list(session.push("Hello, the a that. "))
    codes = np.concatenate([event.codes for event in events if isinstance(event, Sound)], axis=1)
    frames = np.diff([*starts, session.num_frames]).tolist()
    # the same as a recording of the training
    config = SPEAKER.config
    script = TimedScript("x", tuple(units), tuple(frames))
    take = Take(Utterance(key="x", text="", speaker="a"), script, codes.T.astype(np.int16))
    num_frames = codes.shape[1]
    data = {"rows": 1, "row_frames": num_frames + 8, "untold_share": 0.0, "nobody_share": 0.0}
    data["people_meet"] = False
    recitals = Recitals(config, [take], ["a"], {}, data, 0)
    no = np.zeros(1, np.bool_)
    recital = recitals.assemble([[(0, 0, num_frames)]], no, no)
    pace = recital.pace.clone()
    pace[:, :num_frames] = 0.25
    talker = Talker(config, 1).eval()
    talker.generator = make_generator()
    talker.voices.weight.data[1] = torch.from_numpy(vector)
    learnt, step = [], talker.generator.step
    monkeypatch.setattr(
        talker.generator, "step", lambda x, state: (learnt.append(x), step(x, state))[1]
    )
    talker(recital._replace(pace=pace))
    # to the last step that makes a code: a group is made as many frames late as it has before it
    assert len(told) == num_frames + config.num_groups - 1
    torch.testing.assert_close(torch.stack(told), learnt[0][0, : len(told)], rtol=1e-5, atol=1e-5)
