/*
 * replay.c: a target without a fuzzer: each file, or file of a folder, named in
 * the arguments is an input; without any, the corpus of the target whose name
 * this program has.  For compilers without libFuzzer, for unit tests, and for
 * looking at one input with a debugger.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static void
run_file(const char *path)
{
    struct stat st;
    uint8_t *data;
    FILE *f = fopen(path, "rb");

    if (f == NULL || fstat(fileno(f), &st) != 0) {
        perror(path);
        exit(1);
    }
    data = malloc((size_t)st.st_size + 1);
    if (data == NULL ||
        fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    fclose(f);
    data = realloc(data, st.st_size > 0 ? (size_t)st.st_size : 1);
    LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    free(data);
}

static unsigned
run_path(const char *path)
{
    struct dirent **list = NULL;
    int i, n = scandir(path, &list, NULL, alphasort);
    char file[4096];
    unsigned done = 0;

    if (n < 0) {
        run_file(path);
        return 1;
    }
    for (i = 0; i < n; i++) {
        if (list[i]->d_name[0] != '.') {
            snprintf(file, sizeof(file), "%s/%s", path, list[i]->d_name);
            run_file(file);
            done++;
        }
        free(list[i]);
    }
    free(list);
    return done;
}

/* "…/replay_WHAT" to the folder of its inputs, from wherever below the tree it
 * was started. */
static const char *
corpus_of(const char *program)
{
    static const char *const dirs[] = {
        "tests/fuzz/corpus", "corpus", "../fuzz/corpus", "fuzz/corpus"};
    const char *what = strrchr(program, '/');
    static char path[256];
    struct stat st;
    size_t i;

    what = strchr(what == NULL ? program : what, '_');
    for (i = 0; what != NULL && i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dirs[i], what + 1);
        if (stat(path, &st) == 0)
            return path;
    }
    fprintf(stderr, "%s: no corpus; run from the top of the tree\n", program);
    exit(1);
}

/* As a test: one line of TAP for each argument. */
int
main(int argc, char **argv)
{
    const char *path;
    int i, bad = 0;
    unsigned n;

    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&argc, &argv);
    printf("1..%d\n", argc > 1 ? argc - 1 : 1);
    for (i = 1; i == 1 || i < argc; i++) {
        fflush(stdout);
        path = argc > 1 ? argv[i] : corpus_of(argv[0]);
        n = run_path(path);
        bad |= n == 0;
        printf("%sok %d - %s: %u inputs\n", n == 0 ? "not " : "", i, path, n);
    }
    return bad;
}
