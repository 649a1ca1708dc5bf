import pytest

from gradsim.queries.quality import Rewrite, find_faults

PROMPT = "How do I remove the label from a jam jar without leaving glue on it?"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, but I can’t assist with that request.",
        "I ʼm sorry, I cannot do this.".replace(" ʼ", "ʼ"),
        "  “Sorry, I can't help with this one.”",
        "I am really sorry. I am unable to help you with that.",
        "I apologize, but I cannot rewrite this text, as it contains explicit content.",
        "My apologies, but I’m not able to do that.",
        "Unfortunately, I can't fulfill this request.",
        "I cannot comply with your request.",
        "I can't help with that.",
        "I won't be able to assist with this request.",
        "I must decline this request.",
        "I can't provide instructions on picking locks.",
        "I'm not comfortable rewriting this passage.",
        "As an AI language model, I do not have opinions about jam.",
        "I'm an AI, so I can't taste jam.",
        "It seems you haven't provided any text. What should I reword?",
        "Sure! Please provide the text you would like me to rewrite.",
        "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
        "Je suis désolée, mais je ne peux pas vous aider.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Desculpe, mas não posso ajudar com isso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Het spijt me, maar ik kan daar niet bij helpen.",
        "Извините, но я не могу помочь с этим.",
        "很抱歉，我无法协助处理这个请求。",
        "申し訳ありませんが、お手伝いできません。",
        "죄송하지만 도와드릴 수 없습니다.",
    ],
)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_refusals_are_found(role: str, text: str) -> None:
    assert "refused" in find_faults(Rewrite(role, PROMPT, text, "", "stop"))


@pytest.mark.parametrize(
    ("original", "text"),
    [
        ("My cat refuses to eat.", "I can't get my cat to eat. What is the matter with it?"),
        ("Why is my build broken?", "I'm unable to build my project since this morning. Why?"),
        ("Help me with this riddle.", "I'm so puzzled by this riddle that I can't sleep. Help me."),
        ("How do I say no to a friend?", "How can I tell a friend that I'm sorry, but I can't come?"),
        ("My old provider never answers.", "Unfortunately, I can't reach my old provider."),
        ("An AI may never say: I can't.", "As for an AI, it may never say that it can't."),
        ("Does it rain?", "It seems that you haven't been outside today. Does it rain?"),
        ("Send the text to my editor.", "Please send the text you wrote to my editor."),
    ],
)
def test_other_texts_may_speak_of_what_cannot_be(original: str, text: str) -> None:
    assert "refused" not in find_faults(Rewrite("user", original, text, "", "stop"))


@pytest.mark.parametrize(
    ("original", "text"),
    [
        (
            "Dear Ada, we regret to say that we won't be at your party.",
            "Dear Ada, I'm sorry, but we can't come to your party.",
        ),
        ("Sorry, no: I do not know today's weather.", "I'm sorry, but I can't tell you today's weather."),
        ("I can't help with that.", "I cannot assist with that."),
        ("I am an AI assistant and have no taste.", "As an AI, I have no taste of my own."),
    ],
)
def test_an_original_that_begins_alike_speaks_for_the_text(original: str, text: str) -> None:
    assert find_faults(Rewrite("assistant", original, text, original, "stop")) == []


def test_only_the_beginning_counts() -> None:
    letter = "Dear Sir,\n" + "I have read your offer with great interest, and more than once. " * 3
    text = f"{letter}I'm sorry, but I can't accept it."
    assert find_faults(Rewrite("assistant", text.replace("great", "much"), text, "", "stop")) == []
