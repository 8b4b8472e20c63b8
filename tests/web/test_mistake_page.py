"""Mistakes in a real browser: the form changes the grid, the slider changes the image."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.web.conftest import Served
from tests.web.test_pages import check

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

Enter = Callable[[Served], "Tab"]


def test_the_form_chooses_and_the_address_keeps_it(toy_server: Served, enter: Enter) -> None:
    tab = enter(toy_server)
    tab.goto(f"{toy_server.run}/mistakes")
    before = tab.locator(".grid li").count()
    label = tab.locator(".grid span").first.inner_text().rpartition(" taken for ")[2]
    tab.locator("[name=predicted]").select_option(label=label)
    tab.wait_for_function("(before) => document.querySelectorAll('.grid li').length < before", arg=before)
    assert all(text.endswith(f"taken for {label}") for text in tab.locator(".grid span").all_inner_texts())
    left = tab.locator(".grid li").count()
    # Back from a mistake one finds what one had chosen.
    tab.locator(".grid a").first.click()
    tab.wait_for_selector("#way[data-shown]")
    tab.go_back()
    tab.wait_for_load_state("networkidle")
    assert tab.locator(".grid li").count() == left


def test_the_slider_redraws_the_image_and_its_probabilities(toy_server: Served, enter: Enter) -> None:
    tab = enter(toy_server)
    tab.goto(f"{toy_server.run}/mistakes")
    tab.locator(".grid a").first.click()
    tab.wait_for_selector("#way[data-shown='1']")
    check(tab, "mistake")
    tab.set_viewport_size({"width": 1280, "height": 900})
    image, text = tab.get_attribute("#now", "src"), tab.inner_text("#way [data-class] td:last-child >> nth=0")
    slider = tab.get_by_label("Part of the change")
    box = slider.bounding_box()
    assert box is not None
    # Drag it to the left end, as a hand does: the picture follows on the way.
    seen = {image}
    waits = []
    tab.mouse.move(box["x"] + box["width"] * 2 / 3, box["y"] + box["height"] / 2)
    tab.mouse.down()
    for part in (0.5, 0.3, 0.1, 0.0):
        tab.mouse.move(box["x"] + 2 + (box["width"] - 4) * part, box["y"] + box["height"] / 2)
        value = tab.eval_on_selector("#part", "(slider) => Number(slider.value)")
        started = time.perf_counter()
        tab.wait_for_function("(value) => document.getElementById('way').dataset.shown === String(value)", arg=value)
        waits.append(time.perf_counter() - started)
        seen.add(tab.get_attribute("#now", "src"))
    tab.mouse.up()
    assert len(seen) >= 4
    assert tab.inner_text("#says").startswith("0 %: ")
    assert tab.inner_text("#way [data-class] td:last-child >> nth=0") != text
    # At its left end the image is the original, whose probabilities stand beside.
    for row in tab.locator("#way [data-class]").all():
        before, now = row.locator("td").all_inner_texts()
        assert before.strip() == now.strip()
    # By keys as well.
    slider.press("ArrowRight")
    tab.wait_for_selector("#way[data-shown='0.01']")
    assert slider.get_attribute("aria-valuetext", timeout=1000).startswith("1 %: ")
    # The quickest, because other work may share the machine.
    assert min(waits) < 0.1, waits
