/// Writes cpio archives in the "newc" format, the one that Linux unpacks as an initial RAM file system.
///
/// An entry is 6 magic and 13 times 8 hexadecimal digits, the name with a zero byte, and the data; name and data are each padded
/// so that what follows starts at a multiple of four. Source: [LINUX-INITRAMFS "Initramfs buffer format"].
///
/// Everything belongs to root and dates from 1970, so that the same content makes the same bytes.
struct CPIOArchive {
    private(set) var bytes: [UInt8] = []
    private var nextInode: UInt32 = 1

    private static let directoryType: UInt32 = 0o040000
    private static let fileType: UInt32 = 0o100000
    private static let linkType: UInt32 = 0o120000
    private static let characterDeviceType: UInt32 = 0o020000

    init() {}

    /// - Parameter path: without a leading slash; its parent comes earlier in the archive.
    mutating func addDirectory(_ path: String, permissions: UInt32 = 0o755) {
        add(path, mode: Self.directoryType | permissions, links: 2)
    }

    mutating func addFile(_ path: String, _ data: [UInt8], permissions: UInt32 = 0o644) {
        add(path, mode: Self.fileType | permissions, data: data)
    }

    mutating func addLink(_ path: String, to target: String) {
        add(path, mode: Self.linkType | 0o777, data: Array(target.utf8))
    }

    mutating func addCharacterDevice(_ path: String, major: UInt32, minor: UInt32, permissions: UInt32) {
        add(path, mode: Self.characterDeviceType | permissions, device: (major, minor))
    }

    /// The archive with its trailer, padded to whole 512-byte blocks.
    consuming func finished() -> [UInt8] {
        nextInode = 0
        add("TRAILER!!!", mode: 0)
        pad(to: 512)
        return bytes
    }

    private mutating func add(
        _ name: String, mode: UInt32, links: UInt32 = 1, data: [UInt8] = [], device: (UInt32, UInt32) = (0, 0)
    ) {
        let name = Array(name.utf8)
        bytes.append(contentsOf: "070701".utf8)
        let fields: [UInt32] = [
            nextInode, mode, 0, 0, links, 0, UInt32(truncatingIfNeeded: data.count), 0, 0, device.0, device.1,
            UInt32(truncatingIfNeeded: name.count + 1), 0,
        ]
        for field in fields { appendHexadecimal(field) }
        bytes.append(contentsOf: name)
        bytes.append(0)
        pad(to: 4)
        bytes.append(contentsOf: data)
        pad(to: 4)
        nextInode += 1
    }

    private mutating func appendHexadecimal(_ value: UInt32) {
        let digits = Array("0123456789ABCDEF".utf8)
        for shift in stride(from: 28, through: 0, by: -4) {
            bytes.append(digits[Int(value >> UInt32(shift) & 0xF)])
        }
    }

    private mutating func pad(to multiple: Int) {
        while bytes.count % multiple != 0 { bytes.append(0) }
    }
}

extension CPIOArchive {
    struct Entry {
        enum Kind { case file, directory, link, other }

        var path: String
        var kind: Kind
        /// A file's bytes, or a link's target.
        var data: [UInt8]
    }

    /// Reads an archive up to its trailer. It may be anything: nil for what is none, or is cut off.
    static func entries(of bytes: [UInt8]) -> [Entry]? {
        func field(_ header: Int, _ index: Int) -> Int? {
            let start = header + 6 + index * 8
            return UInt32(String(decoding: bytes[start..<start + 8], as: UTF8.self), radix: 16).map(Int.init)
        }
        var entries: [Entry] = []
        var offset = 0
        while offset + 110 <= bytes.count, bytes[offset..<offset + 6].elementsEqual("070701".utf8) {
            guard let mode = field(offset, 1), let size = field(offset, 6), let nameSize = field(offset, 11), nameSize > 0 else {
                return nil
            }
            let nameEnd = offset + 110 + nameSize
            let dataStart = (nameEnd + 3) & ~3
            let dataEnd = dataStart + size
            guard nameEnd <= bytes.count, dataEnd <= bytes.count else { return nil }
            let path = String(decoding: bytes[offset + 110..<nameEnd - 1], as: UTF8.self)
            if path == "TRAILER!!!" { return entries }
            let kind: Entry.Kind =
                switch UInt32(mode) & 0o170000 {
                case fileType: .file
                case directoryType: .directory
                case linkType: .link
                default: .other
                }
            entries.append(Entry(path: path, kind: kind, data: Array(bytes[dataStart..<dataEnd])))
            offset = (dataEnd + 3) & ~3
        }
        return nil
    }
}
