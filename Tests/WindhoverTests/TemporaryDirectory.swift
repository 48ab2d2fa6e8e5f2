import Glibc

@testable import Windhover

/// A directory that goes with its last reference.
final class TemporaryDirectory: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/windhover-test-XXXXXX".utf8CString)
        path = mkdtemp(&template).map { String(cString: $0) } ?? "/nonexistent"
    }

    deinit { try? HostFile.remove(path) }

    /// Writes a file in it.
    @discardableResult
    func file(_ name: String, _ text: String, mode: mode_t = 0o644) -> String {
        let path = "\(path)/\(name)"
        if let stream = fopen(path, "w") {
            fputs(text, stream)
            fclose(stream)
        }
        chmod(path, mode)
        return path
    }
}
