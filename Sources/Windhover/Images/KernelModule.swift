/// A module of a Linux kernel, and what it says of itself.
///
/// The section `.modinfo` of the object file holds `key=value` texts, each with a zero byte behind it. Here are read:
/// `name`, `depends` (names, commas between), `softdep` (what is good to have before it and behind it) and `alias` (patterns
/// of the devices and requests it answers to).
/// Source: [ELF] for the sections, [MODINFO] for the keys.
///
/// The file may be anything: each offset in it is checked.
struct KernelModule: Hashable {
    /// As the kernel calls it, with underscores.
    let name: String
    let dependencies: [String]
    /// What it does better with, or asks for by a name that is not a module's, such as a checksum's: to be loaded before it where
    /// it is there.
    let softDependencies: [String]
    let aliases: [String]
    /// The object file, not compressed and without the signature behind it: to check one costs a guest on the software CPU more
    /// than the rest of loading, and what came with the package was checked with the package. The kernel counts itself tainted
    /// by it ("E").
    let contents: [UInt8]

    /// nil for what is no 64-bit object file with such a section.
    /// - Parameters:
    ///   - fileName: what names it where it does not: modules older than Linux 4.10.
    ///   - keepsSignature: for a kernel that loads none without.
    init?(_ contents: [UInt8], fileName: String, keepsSignature: Bool = false) {
        guard let section = Self.section(".modinfo", in: contents) else { return nil }
        var name: String?
        var dependencies: [String] = []
        var softDependencies: [String] = []
        var aliases: [String] = []
        for text in section.split(separator: 0) {
            let fields = text.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            guard fields.count == 2 else { continue }
            let value = String(decoding: fields[1], as: UTF8.self)
            switch String(decoding: fields[0], as: UTF8.self) {
            case "name": name = value
            case "depends": dependencies += value.split(separator: ",").map { Self.name(ofFile: String($0)) }
            case "softdep": softDependencies += Self.namesBefore(value)
            // A line of modules.alias each: a blank would make two words of it.
            case "alias" where !value.isEmpty && !value.contains(where: \.isWhitespace): aliases.append(value)
            default: break
            }
        }
        self.name = Self.name(ofFile: name ?? fileName)
        self.dependencies = dependencies
        self.softDependencies = softDependencies
        self.aliases = aliases
        self.contents = keepsSignature ? contents : Self.withoutSignature(contents)
    }

    /// Of `pre: a b post: c` those that are to be loaded before.
    private static func namesBefore(_ text: String) -> [String] {
        var names: [String] = []
        var isBefore = false
        for word in text.split(whereSeparator: \.isWhitespace) {
            switch word {
            case "pre:": isBefore = true
            case "post:": isBefore = false
            default: if isBefore { names.append(name(ofFile: String(word))) }
            }
        }
        return names
    }

    /// A signature is followed by 12 bytes, the last four of them its length with the highest byte first, and by a text.
    /// Source: [LINUX-MODULE-SIGNING "Signed modules and stripping"].
    private static func withoutSignature(_ file: [UInt8]) -> [UInt8] {
        let mark = Array("~Module signature appended~\n".utf8)
        let end = file.count - mark.count
        guard end >= 12, file[end...].elementsEqual(mark) else { return file }
        let count = file[end - 4..<end].reduce(0) { $0 << 8 | Int($1) }
        return count <= end - 12 ? Array(file[..<(end - 12 - count)]) : file
    }

    /// A module's name from its file's: `virtio-rng.ko.xz` is `virtio_rng`.
    ///
    /// What is no part of a module's name is left out: it becomes a file's name, and a word of a line.
    static func name(ofFile file: String) -> String {
        String(file.prefix { $0 != "." }.compactMap { $0 == "-" ? "_" : $0 == "/" || $0.isWhitespace || $0 == ":" ? nil : $0 })
    }

    private static func section(_ name: String, in file: [UInt8]) -> ArraySlice<UInt8>? {
        func integer(_ offset: Int, _ size: Int) -> Int? {
            let (end, overflow) = offset.addingReportingOverflow(size)
            guard !overflow, offset >= 0, end <= file.count else { return nil }
            return Int(exactly: file[offset..<end].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
        }
        func bytes(ofHeader header: Int) -> ArraySlice<UInt8>? {
            guard let start = integer(header + 0x18, 8), let count = integer(header + 0x20, 8) else { return nil }
            let (end, overflow) = start.addingReportingOverflow(count)
            guard !overflow, end <= file.count else { return nil }
            return file[start..<end]
        }
        // 64 bits, little-endian.
        guard file.starts(with: [0x7F, 0x45, 0x4C, 0x46, 2, 1]), let table = integer(0x28, 8), table <= file.count,
            let size = integer(0x3A, 2), size >= 64, let count = integer(0x3C, 2), let names = integer(0x3E, 2),
            let nameBytes = bytes(ofHeader: table + names * size)
        else { return nil }
        for index in 0..<count {
            let header = table + index * size
            guard let offset = integer(header, 4), offset <= nameBytes.count else { return nil }
            if nameBytes.dropFirst(offset).prefix(while: { $0 != 0 }).elementsEqual(name.utf8) { return bytes(ofHeader: header) }
        }
        return nil
    }
}
