import Glibc

/// `address add INTERFACE A.B.C.D/PREFIX` gives an interface an address, `address list` lists them all.
@main enum Address {
    static func main() {
        let words = CommandLine.arguments.dropFirst()
        do throws(Netlink.Failure) {
            let netlink = try Netlink()
            switch (words.first, words.count) {
            case ("list", 1): for line in try netlink.list() { print(line) }
            case ("add", 3):
                let (interface, text) = (words[words.startIndex + 1], words[words.startIndex + 2])
                let index = if_nametoindex(interface)
                guard index != 0 else { fail("there is no interface '\(interface)'") }
                guard let (address, prefix) = parse(text) else { fail("'\(text)' is no A.B.C.D/PREFIX") }
                try netlink.add(address, prefix: prefix, to: index)
            default: fail("address list, or address add INTERFACE A.B.C.D/PREFIX")
            }
        } catch {
            fail(String(cString: strerror(error.errno)))
        }
    }

    private static func parse(_ text: String) -> ([UInt8], UInt8)? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        let address = (parts.first ?? "").split(separator: ".", omittingEmptySubsequences: false).compactMap { UInt8($0) }
        guard parts.count == 2, address.count == 4, let prefix = UInt8(parts[1]), prefix <= 32 else { return nil }
        return (address, prefix)
    }

    private static func fail(_ reason: String) -> Never {
        let line = Array("address: \(reason)\n".utf8)
        write(STDERR_FILENO, line, line.count)
        exit(1)
    }
}
