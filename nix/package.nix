# tailnetd and tailnetctl, and for nginx an entry as in pkgs.nginxModules:
#
#   pkgs.nginx.override { modules = [ nginx-tailnet.nginxModule ]; }
{
  lib,
  stdenv,
  jansson,
  libseccomp,
  libsodium,
  libuv,
  nghttp2,
  openssl,
  zstd,
}:

let
  # Only what is built: a changed test makes no other package.
  src = builtins.path {
    name = "nginx-tailnet-source";
    path = ../.;
    filter =
      path: _type:
      let
        name = lib.removePrefix (toString ../. + "/") (toString path);
        top = builtins.head (lib.splitString "/" name);
      in
      builtins.elem top [
        "LICENSE"
        "Makefile"
        "config"
        "ngx_tailnet_module"
      ];
  };
in

stdenv.mkDerivation (finalAttrs: {
  pname = "nginx-tailnet";
  version = "0.1.0";

  inherit src;

  buildInputs = [
    jansson
    libseccomp
    libsodium
    libuv
    nghttp2
    openssl
    zstd
  ];

  # The Makefile has its own; two definitions of it are an error.
  hardeningDisable = [
    "fortify"
    "fortify3"
  ];

  # Warnings of compilers that are newer than ours are for us to see.
  makeFlags = [
    "B=build"
    "CC=${stdenv.cc.targetPrefix}cc"
    "WARN=-Wall"
  ];
  buildFlags = [
    "tailnetd"
    "tailnetctl"
  ];
  enableParallelBuilding = true;

  installPhase = ''
    runHook preInstall
    install -D build/tailnetd $out/bin/tailnetd
    install -D build/tailnetctl $out/bin/tailnetctl
    runHook postInstall
  '';

  passthru.nginxModule = {
    name = "tailnet";
    inherit src;
    # What nginx starts where "tailnet_engine" does not name another.
    preConfigure = ''
      export TAILNETD_BINARY=${finalAttrs.finalPackage}/bin/tailnetd
    '';
    supports = version: lib.versionAtLeast version "1.22.0";
    inherit (finalAttrs) meta;
  };

  meta = {
    description = "nginx as a node of a WireGuard mesh";
    license = lib.licenses.bsd2;
    platforms = lib.platforms.linux;
    mainProgram = "tailnetctl";
  };
})
