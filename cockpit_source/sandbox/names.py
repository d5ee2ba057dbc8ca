"""Invented company names in several scripts."""

# ruff: noqa: RUF001 - Greek and Cyrillic letters are meant to be what they are

from cockpit_source.sandbox.draws import Draws

# Country: first words, second words, endings, text between the words.
_WORDS: dict[str, tuple[str, str, str, str]] = {
    "DE": (
        "Nebelfuchs Mondkeks Papierwal Blaumöwe Zimtigel",
        "Logistik Werkzeugbau Apotheken Gerüste",
        "GmbH AG KG",
        " ",
    ),
    "AT": ("Gipfelkrapfen Donaudachs Wolkenknödel", "Seilbahnen Bäckerei Verlag", "GmbH", " "),
    "CH": ("Rösti-Rakete Murmelbahn Käsekomet", "Treuhand Uhren Spedition", "AG Sàrl", " "),
    "FR": ("Hérisson-Bleu Café-Comète Girafe-Zéro", "Conseil Menuiserie Optique", "SARL SAS", " "),
    "ES": ("Pingüino-Azul Caracol-Veloz Ñandú", "Talleres Clínicas Textil", "S.L. S.A.", " "),
    "PL": ("Śnieżna-Żaba Złoty-Jeż Łoś", "Meble Transport Druk", "Sp.-z-o.o.", " "),
    "SE": ("Älgmoln Ångbulle Örnkaka", "Bygg Skog Hälsa", "AB", " "),
    "GB": (
        "Moonbiscuit Teapot&Heron Otterly Paperwhale Fogbank",
        "Freight Dental Joinery Foods",
        "Ltd PLC LLP",
        " ",
    ),
    "US": ("Cactus-Penguin Waffle-Comet Banjo-Moose", "Robotics Insurance Tacos", "Inc. LLC", " "),
    "GR": ("Μπλε-Σκαντζόχοιρος Φεγγαρόψωμο", "Μεταφορές Εκδόσεις", "ΑΕ ΕΠΕ", " "),
    "BG": ("Лунен-Таралеж Синя-Баница", "Логистика Мебели", "ООД АД", " "),
    "UA": ("Хмарний-Їжак Синій-Вареник", "Будова Аптека", "ТОВ", " "),
    "JP": ("月うさぎ 紙くじら 青だぬき", "物流 製作所 歯科", "株式会社 合同会社", ""),
    "KR": ("달토끼 종이고래", "물류 출판", "주식회사", " "),
    "CN": ("云朵企鹅 纸鲸鱼", "物流 科技", "有限公司", ""),
    "IL": ("קיפוד-כחול לוויתן-נייר", "הובלות ספרים", 'בע"מ', " "),
    "AE": ("بطريق-القمر حوت-الورق", "للشحن للبناء", "ش.م.م", " "),
    "IN": ("चाँद-कछुआ कागज़-व्हेल", "परिवहन प्रकाशन", "प्रा.लि.", " "),
}
_COUNTRIES = tuple(_WORDS)


def draw_company(draws: Draws) -> tuple[str, str]:
    """A country (ISO alpha-2, the first ones more often) and a company name of it; names may repeat."""
    country = draws.pick_early(_COUNTRIES)
    first, second, ending, between = _WORDS[country]
    words = (draws.pick(first.split()), draws.pick(second.split()), draws.pick(ending.split()))
    return country, between.join(word.replace("-", " ") for word in words)
