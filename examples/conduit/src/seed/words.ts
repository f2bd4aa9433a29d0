/** The vocabulary of generated people and articles. */

export const firstNames =
  "Ada Aiko Alba Amara Amir Anouk Arjun Astrid Aylin Bela Bruno Carmen Chidi Clara Dalia Dario Dina Ebba Elif Elio Emeka Esra Farah Felix Freya Goran Hana Hugo Ida Ilse Imran Inès Ivo Jana Jonas Kaia Kamal Karin Kofi Lars Leila Levi Lina Luca Maja Malik Mara Mateo Mei Mila Nadia Nils Noor Nuno Olga Omar Otto Paula Pavel Priya Quinn Rana Remy Rosa Ruben Sami Sanna Selim Sofia Soren Tariq Teo Thea Tomas Uma Vera Viktor Wanda Wren Yara Yusuf Zara Zoe".split(
    " ",
  );

export const lastNames =
  "Abara Almeida Andersen Aydin Bakker Banerjee Beltran Berg Bianchi Castro Chen Costa Dahl Darwish Demir Duarte Eriksen Farkas Ferrari Fischer Fonseca Garcia Haddad Hansen Hassan Horvat Ibarra Ito Jansen Kaya Keita Kim Klein Kovacs Kumar Larsen Lehmann Lindqvist Lopez Marino Meyer Mori Mwangi Nagy Novak Nyberg Okafor Olsen Osei Park Pereira Petrov Popescu Quist Rahman Reyes Ricci Romero Rossi Sato Schmidt Serra Silva Singh Sousa Suzuki Tanaka Toth Traore Varga Vega Visser Weber Yilmaz Zeman".split(
    " ",
  );

export const subjects =
  "small databases; quiet interfaces; slow mornings; the night train; good error messages; bicycle repair; honest metrics; sourdough; city gardens; type systems; old maps; remote teams; paper notebooks; caching; birds of the estuary; code review; winter swimming; message queues; public libraries; plain text; keyboard layouts; open hardware; long walks; schema design; street food; backups; handmade furniture; feature flags; rain; load testing; second-hand books; accessibility; radio plays; incident reports; tea; compilers; neighbourhood cinemas; time zones; mountain huts; documentation".split(
    "; ",
  );

export const titleForms = [
  "What I learned from {}",
  "A field guide to {}",
  "In defence of {}",
  "Notes on {}",
  "The trouble with {}",
  "Getting started with {}",
  "{}, one year later",
  "Why {} matters",
  "Ten small things about {}",
  "Against {}",
  "How we think about {}",
  "A letter about {}",
];

export const sentences = [
  "It took me three attempts to see what was really going on.",
  "The first version was simpler, and in hindsight that was its charm.",
  "Nobody asks for this, yet everybody notices when it is missing.",
  "I kept a diary for a month and counted what I found.",
  "Measure before you decide; then decide, and write down why.",
  "Most of the work is in the parts that nobody will ever see.",
  "A friend put it better than I can: keep what you would miss.",
  "There is a cost to waiting, and there is a cost to hurrying.",
  "The numbers surprised us, so we took them again on another day.",
  "What looked like a detail turned out to hold the whole thing up.",
  "Start with the smallest step that teaches you something.",
  "I would do it again, but with fewer tools and more sleep.",
  "Some questions answer themselves if you leave them alone for a week.",
  "We removed it, and for two days nobody noticed.",
  "It is worth doing slowly the first time.",
  "If I had to keep one habit, it would be this one.",
];

export const tags =
  "programming design life travel food databases web typescript postgres books music health science history gardening photography testing performance accessibility career remote opensource security writing climate cities cycling film games parenting philosophy hardware maps cooking devops learning culture language sports space economics politics art craft nature mathematics walking tea radio trains".split(
    " ",
  );

export const remarks = [
  "Thank you for writing this down.",
  "I disagree with the second point, but the rest is spot on.",
  "This saved me an afternoon.",
  "Do you have a source for the numbers?",
  "Same here. It took us a year to find out.",
  "More of this, please!",
  "I tried it yesterday and it works.",
  "Could you say more about the part in the middle?",
];
