"""The page of `gdrd serve` in headless Chromium: page.py GDRD STUDENT FACES PICTURES [CHROMIUM].

Enrols people, tries a face, moves the threshold and deletes somebody, by the keyboard where that is asked for; writes pictures at three widths, light and
dark; and fails where something is wider than the page, is too small to touch, or the console has an error.
"""

import os
import sys

from common import Server, people
from playwright.sync_api import expect, sync_playwright

program, student, folder, pictures = sys.argv[1:5]
chromium = sys.argv[5] if len(sys.argv) > 5 else None
os.makedirs(pictures, exist_ok=True)
known = {name: [os.path.abspath(path) for path in paths] for name, paths in people(folder, 6, 3).items()}

with Server(program, student) as server, sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page()
    errors = []
    page.on("console", lambda line: line.type == "error" and "404" not in line.text and errors.append(line.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    said = lambda text: expect(page.locator("#said")).to_contain_text(text, timeout=60_000)
    value = lambda: float(page.locator("#slider").input_value())

    page.goto(server.address)
    page.locator("#key").fill("00000000-0000-4000-8000-000000000000")
    page.locator("#key").press("Enter")
    said("API key")
    page.locator("#key").fill(server.key)
    page.locator("#key").press("Enter")
    expect(page.locator("#main")).to_be_visible()
    for name, images in known.items():
        page.locator("#name").fill(name)
        page.locator("#enrol-files").set_input_files(images[:2])
        page.locator("#name").press("Enter")
        said(f"{name}: 2 of 2 images enrolled")
    expect(page.locator("#people li")).to_have_count(len(known))
    name, images = list(known.items())[0]
    page.locator("#try-file").set_input_files(images[0])
    expect(page.locator(".verdict")).to_have_text(f"This is {name}")
    expect(page.locator(".matches li")).to_have_count(5)
    page.locator("#try-file").set_input_files(images[2])
    said(os.path.basename(images[2]))
    assert page.locator(".seen img.small").evaluate("image => image.naturalWidth") == 16

    # The threshold, by the keyboard and by dragging.
    before = value()
    for _ in range(20):
        page.locator("#slider").press("ArrowRight")
    assert abs(value() - before - 0.02) < 1e-6
    measured = page.locator("#curve").is_visible()
    if measured:
        expect(page.locator("#means")).to_contain_text("strangers")
        box = page.locator("#curve").bounding_box()
        handle = page.locator("#knob").bounding_box()
        page.mouse.move(handle["x"] + 8, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(handle["x"] + 8 + box["width"] / 8, box["y"] + box["height"] / 2, steps=5)
        page.mouse.up()
        assert value() > before + 0.05, (before, value())
    page.locator("#keep").press("Enter")
    said("The threshold is")
    page.locator("#off").press("Enter")
    said("No threshold is in use")
    page.locator("#slider").fill(str(before))
    page.locator("#keep").press("Enter")
    said("The threshold is")

    for width in [360, 768, 1440]:
        page.set_viewport_size({"width": width, "height": 900})
        for look in ["light", "dark"]:
            page.emulate_media(color_scheme=look)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} pixels at {width}"
            page.screenshot(path=os.path.join(pictures, f"{width}-{look}.png"), full_page=True)
        small = page.evaluate(
            "[...document.querySelectorAll('button, input, select')].filter(one => one.offsetParent && one.getBoundingClientRect().height < 43)"
            ".map(one => one.id || one.textContent)"
        )
        assert not small, small

    # Everything can be reached by the tabulator, and seen there.
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    wanted = {"try-file", "slider", "keep", "off", "name", "enrol-files", f"Delete {name}"}
    assert wanted <= reached, wanted - reached
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Delete {name}").press("Enter")
    said(f"{name} is deleted")
    expect(page.locator("#people li")).to_have_count(len(known) - 1)
    # The key is kept as long as the page is open.
    page.reload()
    expect(page.locator("#people li")).to_have_count(len(known) - 1)
    assert not errors, errors
    browser.close()
    print(f"the page works, {'with' if measured else 'without'} measured errors; pictures are in {pictures}")
