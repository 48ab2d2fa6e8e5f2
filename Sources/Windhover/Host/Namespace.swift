#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A place apart in which files have the owners that they have on a disk: root's are root's, whoever runs this.
///
/// Mounts and processes in it are its own and end with it, and it ends with hover, whatever ends that. A user without rights
/// gets one where the host gives users namespaces and numbers for them: [SUBUID].
struct Namespace {
    /// What stands before a command.
    let words: [String]

    /// - Parameter tools: as in `HostProgram.find`.
    /// - Throws: `ImageError.cannotMake` where this user cannot have one, with what would change that.
    init(tools: String = "") throws(ImageError) {
        let isRoot = geteuid() == 0
        let candidate = Self.words(isRoot: isRoot)
        let result: HostCommand.Result
        do { result = try HostCommand(candidate + ["true"]).run() } catch {
            throw .lacksProgram("unshare", package: "util-linux")
        }
        if result.status == 0 {
            words = candidate
        } else if isRoot {
            throw .cannotMake(
                "this root may not mount anything (\(DebianPackages.reason(in: result.errorText))): "
                    + "run it outside of the container, or give the container the right (SYS_ADMIN)")
        } else if HostProgram.find("newuidmap") == nil {
            throw .lacksProgram("newuidmap, or root", package: "uidmap")
        } else {
            throw .cannotMake(
                "this user cannot have a namespace with users in it (\(DebianPackages.reason(in: result.errorText))): "
                    + "add the user to /etc/subuid and /etc/subgid, or run it as root")
        }
    }

    /// setpriv has the kernel end unshare with this thread, unshare has it end everything inside with itself.
    static func words(isRoot: Bool) -> [String] {
        ["env", "PATH=" + HostProgram.searchPath, "setpriv", "--pdeathsig", "KILL", "unshare"]
            + (isRoot ? [] : ["--map-root-user", "--map-auto"])
            + ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    }

    /// Removes a tree that may hold files of the namespace's users. What cannot be removed stays.
    static func removeTree(_ path: String) {
        guard (try? HostFile.remove(path)) == nil, geteuid() != 0 else { return }
        _ = try? HostCommand(words(isRoot: false) + ["rm", "-rf", "--one-file-system", "--", path]).run()
    }
}
