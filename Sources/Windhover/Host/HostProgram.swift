#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Programs of the host's, found before they are needed.
enum HostProgram {
    /// A user's search path, then where Debian keeps what administrators use: not all of that is for them alone.
    static let searchPath: String = {
        let path = unsafe getenv("PATH").map { unsafe String(cString: $0) } ?? "/usr/local/bin:/usr/bin:/bin"
        return path + ":/usr/sbin:/sbin"
    }()

    /// - Parameter tools: a directory with its slash to look in, in place of the search path.
    /// - Returns: the program's path; nil where there is none.
    static func find(_ name: String, tools: String = "") -> String? {
        let directories = tools.isEmpty ? searchPath.split(separator: ":").map { $0 + "/" } : [tools[...]]
        return directories.map { $0 + name }.first { unsafe access($0, X_OK) == 0 }
    }
}
