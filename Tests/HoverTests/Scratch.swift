import Glibc
import MonitorTesting

/// Where a command runs, and where it must leave nothing.
typealias Scratch = TemporaryDirectory

extension Scratch {
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
