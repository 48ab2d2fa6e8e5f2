internal import CHost
internal import Glibc

/// One checked component of a path: 1 to 255 bytes, no slash, no zero byte, neither `.` nor `..`.
struct FileName: Hashable, Sendable {
    /// With a zero byte at the end.
    private let bytes: [UInt8]

    /// - Throws: the errno that a guest's name which is none is answered with.
    init(_ name: UnsafeRawBufferPointer) throws(FileError) {
        guard name.count <= 255 else { throw FileError(ENAMETOOLONG) }
        guard name.count > 0 else { throw .invalid }
        var isDots = name.count <= 2
        for unsafe byte in unsafe name {
            guard byte != 0, byte != UInt8(ascii: "/") else { throw .invalid }
            if byte != UInt8(ascii: ".") { isDots = false }
        }
        guard !isDots else { throw .invalid }
        bytes = unsafe [UInt8](unsafeUninitializedCapacity: name.count + 1) { target, count in
            unsafe UnsafeMutableRawBufferPointer(target).copyMemory(from: name)
            unsafe target[name.count] = 0
            count = name.count + 1
        }
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
    /// - Parameter isCached: no server is asked: what the host knows has to do.
    func attributes(_ name: FileName = .none, isCached: Bool = false) throws(FileError) -> chost_file_attributes {
        var result = chost_file_attributes()
        try checked(unsafe name.call { name in unsafe chost_file_stat(number, name, isCached, &result) })
        return result
    }
}

extension chost_file_attributes {
    var kind: UInt32 { mode & UInt32(S_IFMT) }
    var isDirectory: Bool { kind == UInt32(S_IFDIR) }
    /// Whether another file system may begin here than the one that the directory above, of `device`, is on.
    func mayBeMounted(in device: UInt64) -> Bool {
        mount == chost_mount_yes || mount == chost_mount_unknown && self.device != device
    }
    /// How many processes or devices a host has is not said by what they are listed in.
    mutating func conceal() {
        (size, blocks, links) = (0, 0, 2)
    }
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
