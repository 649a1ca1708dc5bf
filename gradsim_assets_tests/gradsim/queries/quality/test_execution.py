"""Prompts that were carried out, beside prompts that were rewritten. All of them were made up for these tests."""

import pytest

from gradsim.queries.quality import Rewrite, find_faults

TO_ENGLISH = "Put the text below into English.\n\n图书馆平日早上九点开门，但周末要到十点才开，请大家注意时间。"
IN_ENGLISH = "The library opens at nine in the morning on weekdays, but only at ten at weekends. Please note the times."
QUOTED = (
    'translate to English: "Die Bäckerin schließt um sechs den Laden auf. Vor der Tür wartet schon der Briefträger, '
    'der jeden Morgen zwei Brezeln kauft und von seinem Hund erzählt."'
)
OF_THE_QUOTED = (
    "The baker unlocks her shop at six. At the door the postman is already waiting, who buys two pretzels every "
    "morning and talks about his dog."
)
SIMPLIFY = (
    "Turn this notice into plain words for visitors whose English is a year old. Prefer what everybody says to what "
    "lawyers say, and two full stops to one semicolon; whoever reads it has to know what to do.\n\nInput: Passengers "
    "intending to transport a bicycle on board are obliged to purchase a supplementary ticket no later than 15 minutes "
    "prior to departure."
)
SIMPLE = (
    "Here is the notice in plain words:\n\nIf you want to take a bicycle with you, you must buy an extra ticket. Buy "
    "it at least 15 minutes before the train leaves."
)
TO_GERMAN = 'Translate into German: "My neighbour has borrowed my ladder, and I have borrowed his patience."'
IN_GERMAN = "Mein Nachbar hat sich meine Leiter geliehen, und ich habe mir seine Geduld geliehen."
FACTS = (
    "List two facts from this paragraph.\n\nThe platypus lives along rivers in eastern Australia and Tasmania. It is "
    "one of the few mammals that lay eggs, and it hunts with its eyes closed."
)
CORRECT = "Correct the grammar of the sentence.\n\nYesterday she go to market and buyed three kilo of potato."
SUM = "A crate holds 24 bottles. If Nadia buys 6 crates and returns 19 empty bottles, how many bottles does she keep?"
TOAST = "Why does toast always seem to land on its buttered side?"
TOAST_ANSWER = (
    "A slice that slides off a table begins to rotate. From the height of a table there is only time for half a turn, "
    "so the side that was on top hits the floor. Butter has little to do with it, as it is far too light."
)
POEM = "Write a short poem about an old bicycle."
POEM_ANSWER = "Its bell has lost its tongue,\nits saddle wears a crown of moss,\nyet downhill it is young."
KEEPER = "You are the last lighthouse keeper. One night the light answers."
KEEPER_ANSWER = "I had polished that lens for thirty years before it spoke."
HERMIT = "Are hermit crabs born with their shells?"
HERMIT_ANSWER = "No. They move into the empty shells of sea snails, and into larger ones as they grow."


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        pytest.param(
            TO_ENGLISH,
            IN_ENGLISH,
            "On weekdays the library's doors open at 9 a.m., at weekends not before 10, so please mind the hours.",
            id="translated from Chinese",
        ),
        pytest.param(
            TO_ENGLISH,
            IN_ENGLISH,
            f"Put the text below into English.\n\n{IN_ENGLISH}",
            id="translated, but with its instruction",
        ),
        pytest.param(
            QUOTED,
            OF_THE_QUOTED,
            "At six, the woman who owns the bakery opens up. The mailman is standing outside; he gets a couple of "
            "pretzels each morning and has stories about his dog.",
            id="translated from a quotation",
        ),
        pytest.param(
            TO_GERMAN,
            IN_GERMAN,
            "Mein Nachbar lieh sich meine Leiter aus, und ich lieh mir dafür seine Geduld aus.",
            id="translated from English",
        ),
        pytest.param(
            SIMPLIFY,
            SIMPLE,
            "Passengers with a bicycle need another ticket. They have to buy it 15 minutes before departure.",
            id="simplified",
        ),
        pytest.param(
            CORRECT,
            "Yesterday she went to the market and bought three kilos of potatoes.",
            "She went to market yesterday and bought three kilos of potatoes.",
            id="corrected",
        ),
        pytest.param(
            FACTS,
            "Two facts from the paragraph are:\n1. The platypus lays eggs.\n2. It lives in Australia and Tasmania.",
            "- The platypus is a mammal that lays eggs.\n- It closes its eyes when it hunts.",
            id="extracted",
        ),
        pytest.param(
            SUM,
            "6 crates hold 6 * 24 = 144 bottles. 144 - 19 = 125, so she keeps 125.",
            "Nadia keeps 125.",
            id="computed",
        ),
        pytest.param(TOAST, TOAST_ANSWER, TOAST_ANSWER, id="answered, to the letter"),
        pytest.param(
            TOAST,
            TOAST_ANSWER,
            "Because the fall from a table only leaves time for half a turn: the slice rotates, and what was on top "
            "ends on the floor.",
            id="answered in other words",
        ),
        pytest.param(HERMIT, HERMIT_ANSWER, "No, hermit crabs find theirs on the beach.", id="answered with no"),
        pytest.param(
            POEM,
            POEM_ANSWER,
            "Two wheels that once outran the rain\nnow lean against the garden wall,\na spider's web for every chain,\n"
            "a bed of leaves to catch their fall.",
            id="a poem of its own",
        ),
        pytest.param(
            POEM,
            POEM_ANSWER,
            "Rust on the chain.\nA snail climbs\nthe highest gear.",
            id="a short poem of its own",
        ),
        pytest.param(
            HERMIT,
            HERMIT_ANSWER,
            "Their young drift through the ocean naked, and look for a home when they settle on the ground.",
            id="a longer text without any word of the answer",
        ),
        pytest.param(KEEPER, KEEPER_ANSWER, KEEPER_ANSWER, id="an answer to what asks for nothing"),
        pytest.param(
            KEEPER,
            KEEPER_ANSWER,
            f"{KEEPER_ANSWER} Now its voice was in every wall of the tower, and all the stairs were listening.",
            id="a longer answer to what asks for nothing",
        ),
        pytest.param(
            "How do you keep bread fresh?",
            "In a paper bag within a wooden box, away from the sun. Never in the refrigerator, which dries it out.",
            "Bread stays good longest in a cool, dark place. Wrap it in a linen cloth and put it into an earthenware "
            "pot with a lid. Slice only what you eat, and place the loaf on its cut side. What is left after four days "
            "makes good croutons.",
            id="an essay",
        ),
    ],
)
def test_what_was_carried_out_is_found(prompt: str, answer: str, text: str) -> None:
    assert "executed" in find_faults(Rewrite("user", prompt, text, answer, "stop"))


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        (
            TO_ENGLISH,
            IN_ENGLISH,
            "Please give the English version of this text.\n\n图书馆平日九点开门，周末十点才开，请注意时间。",
        ),
        (
            TO_ENGLISH,
            IN_ENGLISH,
            "Could you tell me what this says in English: 图书馆平日早上九点开门，但周末要到十点才开？",
        ),
        (
            QUOTED,
            OF_THE_QUOTED,
            'Render this in English: "Um sechs öffnet die Bäckerin ihren Laden. Draußen steht bereits der Briefträger, '
            'der sich täglich zwei Brezeln holt und Geschichten von seinem Hund erzählt."',
        ),
        (
            QUOTED,
            OF_THE_QUOTED,
            'Übersetze ins Englische: "Die Bäckerin sperrt den Laden um sechs auf. Der Briefträger, der jeden Morgen '
            'zwei Brezeln kauft und von seinem Hund erzählt, wartet schon vor der Tür."',
        ),
        (TO_GERMAN, IN_GERMAN, 'How would you say this in German: "My neighbour borrowed my ladder, I his patience"?'),
        (
            SIMPLIFY,
            SIMPLE,
            "Put the notice below plainly for guests who have learned English for one year: everyday speech, no legal "
            "terms, short sentences, and a clear idea of what to do.\n\nInput: Travellers who wish to bring a bicycle "
            "must acquire an additional ticket at least 15 minutes before the train departs.",
        ),
        (
            SIMPLIFY,
            SIMPLE,
            "This notice should become easier for those with little English.\n\nInput: Passengers intending to "
            "transport a bicycle on board are obliged to purchase a supplementary ticket no later than 15 minutes "
            "prior to departure.",
        ),
        (
            CORRECT,
            "Yesterday she went to the market and bought three kilos of potatoes.",
            "Let the grammar of this be right.\n\nYesterday she go to market and buyed three kilo of potato.",
        ),
        (
            FACTS,
            "The platypus lays eggs. It lives in Australia.",
            FACTS.replace("List two facts", "Pick a pair of facts"),
        ),
        (
            SUM,
            "6 crates hold 6 * 24 = 144 bottles. 144 - 19 = 125, so she keeps 125.",
            "There are 24 bottles in each of the 6 crates that Nadia has bought. She takes 19 empty ones back. What "
            "number of bottles remains?",
        ),
        (TOAST, TOAST_ANSWER, "What makes a slice of toast hit the floor with the butter down?"),
        (
            TOAST,
            TOAST_ANSWER,
            "I wonder for what reason a toast that slides off the table turns its buttered side down.",
        ),
        (TOAST, TOAST_ANSWER, "The reason for toast landing on its buttered side"),
        ("How do swifts sleep?", "On the wing.", "A guide to how swifts manage to get some sleep"),
        ("How do swifts sleep?", "On the wing.", "The sleep of swifts:\nits secrets"),
        (HERMIT, HERMIT_ANSWER, "Do hermit crabs come into the world without empty shells of snails?"),
        (POEM, POEM_ANSWER, "Compose a few verses on a bicycle\nthat has seen\nbetter days."),
        (
            KEEPER,
            KEEPER_ANSWER,
            "Nobody but you still keeps a lighthouse. Then, one night, its beam speaks back to you.",
        ),
        (
            "Como faço pão em casa sem fermento?",
            "Esta receita de pão caseiro leva bicarbonato em vez de fermento.",
            "Queria uma receita de pão caseiro, com bicarbonato, mas não com fermento",
        ),
    ],
)
def test_what_was_rewritten_is_left_alone(prompt: str, answer: str, text: str) -> None:
    assert find_faults(Rewrite("user", prompt, text, answer, "stop")) == []


def test_answers_are_not_carried_out() -> None:
    assert "executed" not in find_faults(Rewrite("assistant", TOAST, TOAST_ANSWER, TOAST_ANSWER, "stop"))


def test_a_prompt_that_is_its_own_answer_is_only_unchanged() -> None:
    assert find_faults(Rewrite("user", TOAST, TOAST, TOAST, "stop")) == ["unchanged"]
