/// Why a kernel cannot be had for `hover exec`, or its modules.
public enum GuestKernelError: ReportableError, Hashable {
    /// The store does not have the image.
    case notFetched(String)
    case file(InputFileError)
    /// Its bytes are no kernel, or not one for this machine; with the reason.
    case badKernel(reason: String, exitStatus: ExitStatus)
    case notLinux(path: String)
    /// The host has no kernel of its own where one would be.
    case noHostKernel(looked: [String])
    /// It has some, and lets this user read none.
    case unreadableHostKernel(path: String)
    /// What `--modules` names holds none.
    case noModules(directory: String, release: String?)
    /// A module, or the archive of them, that cannot be used; with the reason.
    case badModule(path: String, problem: String)
    /// The machine needs a module that is neither built in nor there.
    case missing(MissingModule)

    public var exitStatus: ExitStatus {
        switch self {
        case .notFetched, .noHostKernel, .noModules: .noSuchFile
        case .file(let error): error.exitStatus
        case .badKernel(_, let status): status
        case .unreadableHostKernel: .notPermitted
        case .notLinux, .badModule, .missing: .badConfiguration
        }
    }

    public var description: String {
        switch self {
        case .notFetched(let name):
            "the kernel '\(name)' is not here yet: fetch it with hover images fetch \(name), or give a kernel's file"
        case .file(let error): error.description
        case .badKernel(let reason, _): reason
        case .notLinux(let path): "the kernel '\(path)' is no Linux: hover exec needs a Linux bzImage or vmlinux"
        case .noHostKernel(let looked):
            "this host has no kernel of its own (looked for \(looked.joined(separator: ", "))): "
                + "give --kernel linux, or a kernel's file"
        case .unreadableHostKernel(let path):
            "the host's kernel '\(path)' may not be read by this user: have root run chmod 644 '\(path)', "
                + "or give --kernel linux"
        case .noModules(let directory, let release):
            "there are no modules in '\(directory)'" + (release.map { " for the kernel \($0)" } ?? "")
                + ": give the directory that make modules_install or the kernel's package filled, such as "
                + "lib/modules/\(release ?? "RELEASE")"
        case .badModule(let path, let problem): "the module '\(path)' cannot be used: \(problem); install it again"
        case .missing(let missing): missing.description
        }
    }
}

/// A module that a machine has use for, that is not built into the kernel as far as is known, and not there.
public struct MissingModule: Hashable, Sendable, CustomStringConvertible {
    /// As the kernel calls it: `virtiofs`.
    public let name: String
    /// The kernel's release.
    public let release: String
    /// Where it would have been.
    public let looked: String
    /// What the guest cannot do without it; nil for what it does without.
    public let purpose: String?
    /// The module that needs it, where the machine itself does not.
    public let neededBy: String?
    /// The option of a kernel's build that makes it.
    public let option: String?

    public var description: String {
        "the kernel \(release) has no module \(name)"
            + (neededBy.map { ", which \($0) needs" } ?? "") + (purpose.map { ", for \($0)" } ?? "")
            + ": looked in '\(looked)'; install the rest of its modules "
            + "(the package linux-modules-extra-\(release) on Ubuntu, kernel-modules on Fedora), give another directory with --modules"
            + (option.map { ", or build the kernel with \($0)" } ?? ", or give --kernel linux")
    }
}
