"""CompreFace's package for Python, unmodified, against `gdrd serve`: sdk.py GDRD STUDENT FACES."""

import sys

from compreface import CompreFace
from compreface.collections import FaceCollection, Subjects
from common import Server, people

program, student, folder = sys.argv[1:]
known = people(folder, 20)
# As clients ask, with all that they can ask for.
options = {"limit": 0, "det_prob_threshold": 0.8, "prediction_count": 3, "face_plugins": "calculator,age,gender,landmarks,mask", "status": True}

with Server(program, student) as server:
    client = CompreFace(server.domain, server.port, options)
    recognition = client.init_face_recognition(server.key)
    verification = client.init_face_verification(server.key)
    detection = client.init_face_detection(server.key)
    faces: FaceCollection = recognition.get_face_collection()
    subjects: Subjects = recognition.get_subjects()

    assert subjects.add("Somebody") == {"subject": "Somebody"}
    assert subjects.add("Somebody") == {"message": "Subject already exists", "code": 43}
    assert subjects.update("Somebody", "Some Body") == {"updated": True}
    assert subjects.list() == {"subjects": ["Some Body"]}
    assert subjects.delete("Some Body") == {"subject": "Some Body"}

    ids = {}
    for name, (first, _) in known.items():
        said = faces.add(first, name)
        assert said["subject"] == name, said
        ids[name] = said["image_id"]
    listed = faces.list()
    assert listed["total_elements"] == 20 and {one["image_id"] for one in listed["faces"]} == set(ids.values())

    right = 0
    for name, (first, second) in known.items():
        said = recognition.recognize(first)
        best = said["result"][0]["subjects"]
        assert len(best) == 3 and best[0] == {"subject": name, "similarity": 1.0}, best
        assert len(said["result"][0]["embedding"]) > 1 and said["plugins_versions"]["calculator"].startswith("gdrd")
        # Bytes work as well as paths.
        with open(second, "rb") as file:
            right += recognition.recognize(file.read())["result"][0]["subjects"][0]["subject"] == name
    name, (first, second) = next(iter(known.items()))
    verified = faces.verify(second, ids[name])["result"][0]
    assert verified["subject"] == name and 0 <= verified["similarity"] <= 1
    both = verification.verify(first, second)["result"][0]
    assert abs(both["face_matches"][0]["similarity"] - verified["similarity"]) < 1e-4
    assert detection.detect(first)["result"][0]["box"]["probability"] == 1.0

    assert faces.delete(ids[name]) == {"image_id": ids[name], "subject": name}
    assert faces.delete(ids[name])["code"] == 44
    other = list(known)[1]
    assert faces.delete_all(other) == {"deleted": 1}
    assert subjects.delete_all() == {"deleted": 19}
    assert subjects.list() == {"subjects": []}
    wrong = CompreFace(server.domain, server.port).init_face_recognition("00000000-0000-4000-8000-000000000000")
    assert wrong.recognize(first)["code"] == 10
    print(f"compreface-sdk: every call works; {right} of {len(known)} second images are recognised among {len(known)} people")
