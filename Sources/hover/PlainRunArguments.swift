import Windhover

/// The arguments of a `hover run` in their plain form: long options, each once, each with its value as a word of its own.
///
/// Starting a guest must not wait for the argument parser, which finds out what its options are by reflection: that takes
/// as long as making the virtual machine. So the plain form is read here, and whatever is not (abbreviations,
/// `--option=value`, options given twice, help, mistakes) is the parser's, with its messages. A test sees to it that
/// both understand every option alike.
struct PlainRunArguments {
    private(set) var options = RunOptions()
    private(set) var isVerbose = false

    /// - Parameter words: the arguments, without the program's name.
    /// - Returns: nil for anything that is the parser's.
    init?(_ words: some Sequence<String>) {
        var words = words.makeIterator()
        guard words.next() == "run" else { return nil }
        var seen: [String] = []
        while let word = words.next() {
            if Self.isValue(word) {
                guard options.image == nil else { return nil }
                options.image = word
                continue
            }
            guard Self.repeatable.contains(word) || !seen.contains(word) else { return nil }
            seen.append(word)
            switch word {
            case "--no-reboot":
                options.noReboot = true
                continue
            case "--balloon":
                options.balloon = true
                continue
            case "--verbose", "-v":
                isVerbose = true
                continue
            default:
                break
            }
            guard let value = words.next(), Self.isValue(value), take(value, for: word) else { return nil }
        }
    }

    private static let repeatable = ["--append", "--disk", "--net", "--share", "--port"]

    /// - Returns: false for an option that is not known here.
    private mutating func take(_ value: String, for option: String) -> Bool {
        switch option {
        case "--kernel": options.kernel = value
        case "--initrd": options.initrd = value
        case "--append": options.append.append(value)
        case "--decompress": options.decompression = value
        case "--memory": options.memory = value
        case "--cpus": options.cpus = value
        case "--engine": options.engine = value
        case "--irqchip": options.interruptChips = value
        case "--clock": options.clock = value
        case "--huge-pages": options.hugePages = value
        case "--console": options.console = value
        case "--timeout": options.timeout = value
        case "--stats": options.statistics = value
        case "--disk": options.disks.append(value)
        case "--net": options.networks.append(value)
        case "--share": options.shares.append(value)
        case "--vsock": options.socket = value
        case "--port": options.ports.append(value)
        case "--memory-target": options.memoryTarget = value
        case "--transport": options.transport = value
        default: return false
        }
        return true
    }

    /// Words that begin with a dash, and empty ones, have rules of their own.
    private static func isValue(_ word: String) -> Bool { word.utf8.first.map { $0 != UInt8(ascii: "-") } ?? false }
}
