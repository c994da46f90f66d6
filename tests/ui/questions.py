"""Ten questions of a new user, as clicks from the first page on: links by their addresses, and forms."""

FIRST, FAILED, SECOND = (f"2026010{day}T010203.000-aaa{day}" for day in (1, 2, 3))

# What is asked; the clicks, each a regular expression of a link's address or the fields of a form with its
# address; and texts of the answer.
QUESTIONS: dict[str, tuple[list[object], list[str]]] = {
    "Why did last night's run fail?": ([f"/runs/{FAILED}"], ["ValueError: no photo could be read"]),
    "What does its log say?": (
        [f"/runs/{FAILED}", f"/runs/{FAILED}/logs/Trainer"],
        ["step 2 of 2", "no photo could be read"],
    ),
    "Which photos were new in v2?": (
        ["/datasets/items", ("/datasets/items/diff", {"old": "v1", "new": "v2"})],
        ["item-39", "data:image/jpeg"],
    ),
    "What is serving now, and who approved it?": (
        ["/models/item_category/versions/2"],
        ["ann approved", "fewer wrong shoes"],
    ),
    "Which models saw item-3?": (
        ["/datasets/items", ("/datasets/items/record", {"key": "item-3"})],
        ["item_category@1", "item_category@2"],
    ),
    "What differs between the last run and the one before?": (
        [f"/runs/{SECOND}", rf"/compare\?run={FIRST}&run={SECOND}"],
        ["items@v1", "items@v2", "epochs"],
    ),
    "What did gates refuse, and why?": (["/gates"], ["3 records of train have no label"]),
    "Which data and code made the model that serves?": (
        ["/models/item_category/versions/2", r"/lineage\?what=model%3Aitem_category%402"],
        ["items@v2", SECOND],
    ),
    "What would be freed on the disk?": (["/disk"], ["mlplatform gc"]),
    "Who is to approve what?": ([f"/runs/{FAILED}/approval"], ["item_category", "bob"]),
    "Why did the training run again?": (
        [f"/runs/{SECOND}", f"/runs/{SECOND}/nodes/Trainer"],
        ["input examples has other content"],
    ),
}
MOST_CLICKS = 3
