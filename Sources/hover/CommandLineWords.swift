import Windhover

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The program's arguments as it was given them. The parser sees them as text, in which bytes that are no UTF-8 are U+FFFD; what is to
/// reach a command as it is is looked up here.
struct CommandLineWords {
    private let words: [CommandWord]

    init(_ words: [CommandWord]) { self.words = words }

    /// This process's own, without the program's name.
    static var given: CommandLineWords {
        CommandLineWords(
            (1..<max(1, Int(CommandLine.argc))).compactMap { index in
                guard let word = unsafe CommandLine.unsafeArgv[index] else { return nil }
                return unsafe CommandWord(bytes: UnsafeRawBufferPointer(start: word, count: strlen(word)))
            })
    }

    /// The words at the end, which the parser leaves as they are.
    func last(_ texts: [String]) -> [CommandWord] {
        let end = Array(words.suffix(texts.count))
        return end.map(\.description) == texts ? end : texts.map { CommandWord($0) }
    }

    /// What an option was given, each time that it was: `--env WORD`, `--env=WORD`.
    func values(_ texts: [String], of option: String) -> [CommandWord] {
        var start = words.startIndex
        return texts.map { text in
            let index = words[start...].indices.first { index in
                let word = words[index].description
                return word == "\(option)=\(text)" || word == text && index > 0 && words[index - 1] == CommandWord(option)
            }
            guard let index else { return CommandWord(text) }
            start = index + 1
            return words[index].description == text ? words[index] : CommandWord(bytes: words[index].bytes.dropFirst(option.utf8.count + 1))
        }
    }
}
