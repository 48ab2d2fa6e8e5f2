internal import Glibc

/// A directory that goes with its last reference, whatever has come into it by then: names of any bytes, directories that nobody may
/// look into.
public final class TemporaryDirectory: Sendable {
    public let path: String

    /// - Parameter parent: where it is made. If that cannot be, `path` is of a directory that is not there.
    public init(in parent: String = "/tmp") {
        var template = Array("\(parent)/windhover-XXXXXX".utf8CString)
        path = unsafe mkdtemp(&template).map { unsafe String(cString: $0) } ?? "/nonexistent"
        unsafe chmod(path, 0o755)
    }

    deinit { Self.remove(path) }

    /// Writes a file in it.
    /// - Returns: its path.
    @discardableResult
    public func file(_ name: String, _ bytes: [UInt8], mode: UInt32 = 0o644) -> String {
        let path = "\(path)/\(name)"
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        unsafe bytes.withUnsafeBytes { unsafe _ = write(descriptor, $0.baseAddress, $0.count) }
        close(descriptor)
        unsafe chmod(path, mode)
        return path
    }

    /// Writes a file in it.
    /// - Returns: its path.
    @discardableResult
    public func file(_ name: String, _ text: String, mode: UInt32 = 0o644) -> String { file(name, Array(text.utf8), mode: mode) }

    /// The names in a directory, in order. What is no UTF-8 is mended.
    public static func names(in path: String) -> [String] {
        rawNames(in: Array(path.utf8CString)).map { String(decoding: $0.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self) }.sorted()
    }

    /// As the host has them, with a zero behind each: a guest's names may be any bytes.
    static func rawNames(in path: [CChar]) -> [[CChar]] {
        guard let stream = unsafe opendir(path) else { return [] }
        defer { unsafe closedir(stream) }
        var names: [[CChar]] = []
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe Array(bytes.prefix { $0 != 0 }).map { CChar(bitPattern: $0) }
            }
            if name != [46], name != [46, 46] { names.append(name + [0]) }
        }
        return names
    }

    /// Removes a file, or a directory with all that is in it; no links are followed.
    public static func remove(_ path: String) { remove(Array(path.utf8CString)) }

    private static func remove(_ path: [CChar]) {
        guard unsafe unlink(path) != 0 else { return }
        // The right to look into it may have been taken away.
        unsafe chmod(path, 0o700)
        for name in rawNames(in: path) { remove(path.dropLast() + [47] + name) }
        unsafe rmdir(path)
    }
}
