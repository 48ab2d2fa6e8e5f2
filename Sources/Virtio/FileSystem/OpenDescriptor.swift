internal import CHost
internal import Glibc

/// One checked component of a path: 1 to 255 bytes, no slash, no zero byte, neither `.` nor `..`.
struct FileName: Hashable, Sendable {
    /// With a zero byte at the end.
    private let bytes: [UInt8]

    /// - Throws: the errno that a guest's name which is none is answered with.
    init(_ name: some Collection<UInt8>) throws(FileError) {
        guard name.count <= 255 else { throw FileError(ENAMETOOLONG) }
        guard let first = name.first, !name.contains(0), !name.contains(UInt8(ascii: "/")) else { throw .invalid }
        let isDots = name.count <= 2 && first == UInt8(ascii: ".") && name.allSatisfy { $0 == UInt8(ascii: ".") }
        guard !isDots else { throw .invalid }
        bytes = Array(name) + [0]
    }

    /// The name of an extended attribute, which may hold slashes.
    init(attribute name: [UInt8]) throws(FileError) {
        guard !name.contains(0) else { throw .invalid }
        bytes = name + [0]
    }

    /// No name: the place of a file that has none.
    static let none = FileName()
    private init() { bytes = [0] }
    var isNone: Bool { bytes.count <= 1 }

    @inline(__always)
    func call<Result>(_ body: (UnsafePointer<CChar>) -> Result) -> Result {
        unsafe bytes.withUnsafeBufferPointer { bytes in
            unsafe bytes.withMemoryRebound(to: CChar.self) { bytes in
                // Not empty: it ends with a zero.
                unsafe bytes.baseAddress.map { unsafe body($0) } ?? body("")
            }
        }
    }
}

/// A descriptor of the host's that closes with the last one who uses it: a call that is under way never finds another file
/// behind its number.
final class OpenDescriptor: Sendable {
    let number: Int32

    init(_ number: Int32) { self.number = number }

    deinit { close(number) }

    /// Opens one component below, following nothing.
    func open(_ name: FileName, flags: Int32, mode: UInt32 = 0) throws(FileError) -> OpenDescriptor {
        OpenDescriptor(try checked(unsafe name.call { name in unsafe chost_file_open(number, name, flags, mode) }))
    }

    /// What is said of a name below, or of the file itself.
    func attributes(_ name: FileName = .none) throws(FileError) -> chost_file_attributes {
        var result = chost_file_attributes()
        try checked(unsafe name.call { name in unsafe chost_file_stat(number, name, &result) })
        return result
    }
}

extension chost_file_attributes {
    var kind: UInt32 { mode & UInt32(S_IFMT) }
    var isDirectory: Bool { kind == UInt32(S_IFDIR) }
    var isRegular: Bool { kind == UInt32(S_IFREG) }
    var identity: FileIdentity { FileIdentity(device: device, inode: inode) }
    /// When the inode was made, which tells a new one of an old number; 0 where the file system does not say.
    var birth: UInt64 { UInt64(bitPattern: born) &* 1_000_000_000 &+ UInt64(born_ns) }
    /// Changes with the contents.
    var stamp: FileStamp {
        FileStamp(
            modified: UInt64(bitPattern: modified) &* 1_000_000_000 &+ UInt64(modified_ns),
            changed: UInt64(bitPattern: changed) &* 1_000_000_000 &+ UInt64(changed_ns), size: size)
    }
}

/// One file of the host's, under all its names.
struct FileIdentity: Hashable, BitwiseCopyable {
    var device: UInt64
    var inode: UInt64
}

/// What a file's contents were like when the guest last opened it.
struct FileStamp: Hashable, BitwiseCopyable {
    var modified: UInt64 = 0
    var changed: UInt64 = 0
    var size: UInt64 = 0
}
