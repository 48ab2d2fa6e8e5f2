import Glibc

/// A directory that goes with its last reference: where a command runs, and where it must leave nothing.
final class Scratch: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/hover-test-XXXXXX".utf8CString)
        path = mkdtemp(&template).map { String(cString: $0) } ?? "/nonexistent"
        chmod(path, 0o755)
    }

    deinit { Self.remove(path) }

    private static func remove(_ path: String) {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name == "." || name == ".." { continue }
                let child = "\(path)/\(name)"
                if entry.pointee.d_type == UInt8(DT_DIR) { remove(child) } else { unlink(child) }
            }
            closedir(directory)
        }
        rmdir(path)
    }

    /// Writes a file in it.
    /// - Returns: its path.
    @discardableResult
    func file(_ name: String, _ bytes: [UInt8], mode: mode_t = 0o644) -> String {
        let path = "\(path)/\(name)"
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        bytes.withUnsafeBytes { _ = write(descriptor, $0.baseAddress, $0.count) }
        close(descriptor)
        chmod(path, mode)
        return path
    }

    /// A file of that size that takes no room.
    @discardableResult
    func sparse(_ name: String, _ size: Int) -> String {
        let path = file(name, [])
        truncate(path, size)
        return path
    }

    /// Every path in it with its size, for a comparison of before and after.
    var contents: [String] { Self.list(path) }

    private static func list(_ path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name == "." || name == ".." { continue }
            var status = stat()
            lstat("\(path)/\(name)", &status)
            names.append("\(name) \(status.st_mode) \(entry.pointee.d_type == UInt8(DT_DIR) ? 0 : status.st_size)")
            if entry.pointee.d_type == UInt8(DT_DIR) { names += list("\(path)/\(name)").map { "\(name)/\($0)" } }
        }
        return names.sorted()
    }
}
