import Logging
import Windhover

/// Finds what is to be booted, sees that it is there, and runs it.
///
/// - Throws: a `ReportableError` for what cannot be run, or an `ExitStatus` for a run that ended badly.
func launch(_ configuration: RunConfiguration, logger: Logger) throws {
    let files = try guestFiles(of: configuration)
    logger.debug("kernel \(files.kernel ?? "built in"), initrd \(files.initrd ?? "none")")
    let result = try GuestRun(configuration, files: files, logger: logger) { Hover.remark($0) }.run()
    Hover.end(result)
}

/// Resolves a run's source to files that are there, fetching a named image that is not.
func guestFiles(of configuration: RunConfiguration) throws -> GuestFiles {
    // Before anything is fetched.
    if let initrd = configuration.initrd { try InputFile.check(initrd, role: "initrd") }
    try configuration.checkDisks()
    var files = GuestFiles(initrd: configuration.initrd)
    switch configuration.source {
    case .builtIn:
        break
    case .file(let path):
        try InputFile.check(path, role: "kernel")
        files.kernel = path
    case .image(let name):
        let store = try ImageStore()
        let image: ImageFiles
        if let found = store.locate(name) {
            image = found
        } else {
            image = try fetch(name, into: store).files
        }
        files.kernel = image.kernel
        files.preparedKernel = image.preparedKernel
        files.initrd = configuration.initrd ?? image.initrd
        files.modules = image.modules
        files.isOurs = true
    }
    return files
}

/// Finds the kernel that a command's guest boots, fetching the image that it is of if that is not there.
func guestKernel(of configuration: ExecConfiguration) throws -> GuestKernel {
    let store = try ImageStore()
    if configuration.kernel == .linux, store.locate(RunConfiguration.imageNames[0]) == nil {
        _ = try fetch(RunConfiguration.imageNames[0], into: store)
    }
    return try GuestKernel.locate(configuration.kernel, modules: configuration.modules, store: store)
}
