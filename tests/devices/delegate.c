/* A small delegate with TFLite's external interface: float32 ADD and MUL, on the CPU.
 *
 * Its options make it honest or a liar:
 *   operators = "add", "mul", "add,mul" (the default)
 *   fault     = what it does wrong, see below; none by default
 * It is compiled by the tests. The declarations are the part of the interface that it uses. Compiled
 * with THREADS it starts so many when it is loaded, and its kernels run in those; with AT_LOAD that
 * is then done.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OK = 0, ERROR = 1, FLOAT32 = 1, ADD = 0, MUL = 18, DELEGATE = 51, MOST = 64 };

typedef struct { int size; int data[]; } IntArray;
typedef struct Delegate Delegate;
typedef struct Context Context;

typedef struct {
  int type;
  void *data;
  IntArray *dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  Delegate *delegate;
  int buffer_handle;
  bool data_is_stale, is_variable;
  struct { int type; void *params; } quantization;
  void *sparsity;
  const IntArray *dims_signature;
} Tensor;

typedef struct {
  IntArray *inputs, *outputs, *intermediates, *temporaries;
  void *user_data, *builtin_data;
  const void *custom_initial_data;
  int custom_initial_data_size;
  Delegate *delegate;
  bool might_have_side_effect;
} Node;

typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *registration_external, *async_kernel;
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context *, IntArray **);
  Tensor *tensors;
  void *impl;
  int (*ResizeTensor)(Context *, Tensor *, IntArray *);
  void (*ReportError)(Context *, const char *, ...);
  int (*AddTensors)(Context *, int, int *);
  int (*GetNodeAndRegistration)(Context *, int, Node **, Registration **);
  int (*ReplaceNodeSubsets)(Context *, Registration, const IntArray *, Delegate *);
};

struct Delegate {
  void *data;
  int (*Prepare)(Context *, Delegate *);
  int (*CopyFromBufferHandle)(Context *, Delegate *, int, Tensor *);
  int (*CopyToBufferHandle)(Context *, Delegate *, int, Tensor *);
  void (*FreeBufferHandle)(Context *, Delegate *, int *);
  int64_t flags;
  void *opaque_delegate_builder;
};

typedef struct {
  Delegate *delegate;
  IntArray *nodes_to_replace, *input_tensors, *output_tensors;
} Params;

typedef struct {
  bool add, mul;
  char fault[32];
  int kernels; /* how many live */
} Settings;

typedef struct { int code, left, right, output; } Step;

typedef struct {
  Settings *settings;
  int count;
  Step steps[MOST];
  IntArray *shapes[MOST]; /* of each step's output */
  void *between[MOST];    /* memory of the outputs that nobody else sees */
  int outputs;
  int output_of[MOST];
} Kernel;

static bool has_fault(const Settings *settings, const char *name) {
  return strcmp(settings->fault, name) == 0;
}

static size_t elements(const IntArray *dims) {
  size_t count = 1;
  for (int i = 0; i < dims->size; i++) count *= (size_t)dims->data[i];
  return count;
}

static void *init(Context *context, const char *buffer, size_t length) {
  (void)length;
  const Params *params = (const Params *)buffer;
  Settings *settings = params->delegate->data;
  Kernel *kernel = calloc(1, sizeof *kernel);
  kernel->settings = settings;
  settings->kernels++;
  for (int i = 0; i < params->nodes_to_replace->size && i < MOST; i++) {
    Node *node;
    Registration *registration;
    context->GetNodeAndRegistration(context, params->nodes_to_replace->data[i], &node, &registration);
    kernel->steps[kernel->count++] = (Step){registration->builtin_code, node->inputs->data[0],
                                            node->inputs->data[1], node->outputs->data[0]};
  }
  kernel->outputs = params->output_tensors->size;
  for (int i = 0; i < kernel->outputs && i < MOST; i++)
    kernel->output_of[i] = params->output_tensors->data[i];
  return kernel;
}

static void release(Context *context, void *data) {
  (void)context;
  Kernel *kernel = data;
  kernel->settings->kernels--;
  for (int i = 0; i < MOST; i++) free(kernel->between[i]), free(kernel->shapes[i]);
  free(kernel);
}

static bool is_output(const Kernel *kernel, int tensor) {
  for (int i = 0; i < kernel->outputs; i++)
    if (kernel->output_of[i] == tensor) return true;
  return false;
}

static IntArray *copy_of(const IntArray *dims) {
  size_t bytes = sizeof(IntArray) + sizeof(int) * (size_t)dims->size;
  return memcpy(malloc(bytes), dims, bytes);
}

/* Tensors between two steps are not the interpreter's any more: their shapes are ours. */
static const IntArray *shape_of(Context *context, const Kernel *kernel, int tensor) {
  for (int i = 0; i < kernel->count; i++)
    if (kernel->shapes[i] && kernel->steps[i].output == tensor) return kernel->shapes[i];
  return context->tensors[tensor].dims;
}

static const IntArray *larger(Context *context, const Kernel *kernel, const Step *step) {
  const IntArray *left = shape_of(context, kernel, step->left);
  const IntArray *right = shape_of(context, kernel, step->right);
  return elements(left) >= elements(right) ? left : right;
}

static int prepare(Context *context, Node *node) {
  Kernel *kernel = node->user_data;
  if (has_fault(kernel->settings, "kernel-prepare")) {
    context->ReportError(context, "the little delegate cannot prepare. ");
    return ERROR;
  }
  if (has_fault(kernel->settings, "hang-prepare"))
    for (;;) ;
  for (int i = 0; i < kernel->count; i++) {
    const Step *step = &kernel->steps[i];
    size_t lefts = elements(shape_of(context, kernel, step->left));
    size_t rights = elements(shape_of(context, kernel, step->right));
    if (lefts != rights && lefts != 1 && rights != 1) {
      context->ReportError(context, "the little delegate does not broadcast. ");
      return ERROR;
    }
    IntArray *shape = copy_of(larger(context, kernel, step));
    bool visible = is_output(kernel, step->output);
    free(kernel->shapes[i]);
    kernel->shapes[i] = shape;
    if (has_fault(kernel->settings, "size") && visible && shape->size)
      shape->data[shape->size - 1] += 1;
    if (visible) {
      Tensor *tensor = &context->tensors[step->output];
      if (context->ResizeTensor(context, tensor, copy_of(shape)) != OK) return ERROR;
    } else {
      free(kernel->between[i]);
      kernel->between[i] = malloc(elements(shape) * sizeof(float) + 1);
    }
  }
  return OK;
}

static float *memory_of(Context *context, Kernel *kernel, int tensor) {
  for (int i = 0; i < kernel->count; i++)
    if (kernel->between[i] && kernel->steps[i].output == tensor) return kernel->between[i];
  return context->tensors[tensor].data;
}

#ifdef THREADS
/* What a thread of the library's own may do while the library is loaded. */
static struct { unsigned rights; int no_new_privileges, reads, writes; } early;
#endif

static int compute(Context *context, Node *node) {
  Kernel *kernel = node->user_data;
  const Settings *settings = kernel->settings;
#ifdef THREADS
  if (has_fault(settings, "early")) {
    context->ReportError(context, "rights %x, no new ones %d, reads %d, writes %d. ", early.rights,
                         early.no_new_privileges, early.reads, early.writes);
    return ERROR;
  }
#endif
  if (has_fault(settings, "invoke")) {
    context->ReportError(context, "the little delegate cannot run");
    return ERROR;
  }
  if (has_fault(settings, "hang"))
    for (;;) ;
  if (has_fault(settings, "crash")) *(volatile int *)8 = 1;
  if (has_fault(settings, "abort")) {
    fputs("the little delegate gives up\n", stderr);
    abort();
  }
  if (has_fault(settings, "socket")) socket(AF_INET, SOCK_STREAM, 0);
  if (has_fault(settings, "fork") && fork() == 0) _exit(0);
  if (has_fault(settings, "late-size"))
    context->tensors[kernel->output_of[0]].dims->data[0] += 7;
  if (has_fault(settings, "needs-node")) { /* no fault at all, where it is granted /dev/zero */
    char zero = 1;
    int node = open("/dev/zero", O_RDWR | O_CLOEXEC);
    bool works = node >= 0 && read(node, &zero, 1) == 1 && zero == 0;
    if (node >= 0) close(node);
    if (!works || open("/dev/null", O_RDWR) >= 0 || open("../etc/passwd", O_RDONLY) >= 0) {
      context->ReportError(context, works ? "it opened another file. " : "it opened no node. ");
      return ERROR;
    }
  }
  if (has_fault(settings, "open")) {
    FILE *file = fopen("/etc/passwd", "r");
    context->ReportError(context, file ? "it opened a file. " : "it opened no file. ");
    return ERROR;
  }
  for (int i = 0; i < kernel->count; i++) {
    const Step *step = &kernel->steps[i];
    const float *left = memory_of(context, kernel, step->left);
    const float *right = memory_of(context, kernel, step->right);
    float *output = memory_of(context, kernel, step->output);
    size_t lefts = elements(shape_of(context, kernel, step->left));
    size_t rights = elements(shape_of(context, kernel, step->right));
    size_t count = elements(kernel->shapes[i]);
    for (size_t k = 0; k < count; k++) {
      float a = left[lefts == 1 ? 0 : k], b = right[rights == 1 ? 0 : k];
      output[k] = step->code == ADD ? a + b : a * b;
    }
  }
  return OK;
}

#ifdef THREADS
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct { Context *context; Node *node; int status; enum { NONE, WAITS, RUNS, DONE } state; } job;

static int error_of_opening(const char *path, int flags) {
  int file = open(path, flags | O_CLOEXEC, 0600);
  if (file < 0) return errno;
  close(file);
  return 0;
}

static void look_around(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2] = {{0}};
  syscall(SYS_capget, &header, sets);
  for (int i = 0; i < 2; i++) early.rights |= sets[i].effective | sets[i].permitted;
  early.no_new_privileges = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  early.reads = error_of_opening("/proc/self/stat", O_RDONLY);
  early.writes = error_of_opening("/tmp/little-delegate", O_WRONLY | O_CREAT);
}

static void *work(void *argument) {
  pthread_mutex_lock(&lock);
  for (;;) {
    while (job.state != WAITS) pthread_cond_wait(&changed, &lock);
    job.state = RUNS;
    pthread_mutex_unlock(&lock);
    int status = compute(job.context, job.node);
    pthread_mutex_lock(&lock);
    job.status = status;
    job.state = DONE;
    pthread_cond_broadcast(&changed);
  }
  return argument;
}

static void *look_around_and_work(void *argument) {
  pthread_mutex_lock(&lock);
  look_around();
  pthread_mutex_unlock(&lock);
  return work(argument);
}

__attribute__((unused)) static void *end_at_once(void *argument) { return argument; }

__attribute__((constructor)) static void start_threads(void) {
  for (int i = 0; i < THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, look_around_and_work, NULL) != 0) abort();
  }
#ifdef AT_LOAD
  AT_LOAD;
#endif
}

static int invoke(Context *context, Node *node) {
  pthread_mutex_lock(&lock);
  job.context = context, job.node = node, job.state = WAITS;
  pthread_cond_broadcast(&changed);
  while (job.state != DONE) pthread_cond_wait(&changed, &lock);
  int status = job.status;
  job.state = NONE;
  pthread_mutex_unlock(&lock);
  return status;
}
#else
static int invoke(Context *context, Node *node) { return compute(context, node); }
#endif

/* Both sides have as many dimensions, or one is a single number; no activation comes after. Sizes are
 * looked at by the kernel: here they may be those of a run before a resize. */
static bool takes(const Settings *settings, const Context *context, const Node *node, int code) {
  if (!(code == ADD && settings->add) && !(code == MUL && settings->mul)) return false;
  if (node->inputs->size != 2 || *(const int *)node->builtin_data != 0) return false;
  const Tensor *left = &context->tensors[node->inputs->data[0]];
  const Tensor *right = &context->tensors[node->inputs->data[1]];
  if (left->type != FLOAT32 || right->type != FLOAT32) return false;
  size_t lefts = elements(left->dims), rights = elements(right->dims);
  return left->dims->size == right->dims->size || lefts == 1 || rights == 1;
}

static int prepare_delegate(Context *context, Delegate *delegate) {
  Settings *settings = delegate->data;
  if (has_fault(settings, "prepare")) {
    context->ReportError(context, "the little delegate refuses. ");
    return ERROR;
  }
  IntArray *plan, *chosen;
  if (context->GetExecutionPlan(context, &plan) != OK) return ERROR;
  chosen = malloc(sizeof(IntArray) + sizeof(int) * (size_t)(plan->size + 1));
  chosen->size = 0;
  for (int i = 0; i < plan->size; i++) {
    Node *node;
    Registration *registration;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration) != OK) return ERROR;
    if (takes(settings, context, node, registration->builtin_code))
      chosen->data[chosen->size++] = plan->data[i];
  }
  if (has_fault(settings, "prepare-known") && chosen->size) {
    context->ReportError(context, "the little delegate refuses what it takes. ");
    free(chosen);
    return ERROR;
  }
  if (has_fault(settings, "stranger")) chosen->data[chosen->size++] = 12345;
  Registration registration = {init, release, prepare, invoke, NULL, DELEGATE, "LittleDelegate", 1,
                               NULL, NULL, 0};
  int status = context->ReplaceNodeSubsets(context, registration, chosen, delegate);
  free(chosen);
  return status;
}

static void *do_nothing(void *argument) {
  static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
  static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
  pthread_mutex_lock(&own);
  for (;;) pthread_cond_wait(&never, &own);
  return argument;
}

__attribute__((visibility("default"))) Delegate *tflite_plugin_create_delegate(
    const char *const *keys, const char *const *values, size_t count,
    void (*report_error)(const char *)) {
  static int created;
  Settings *settings = calloc(1, sizeof *settings);
  settings->add = settings->mul = true;
  for (size_t i = 0; i < count; i++) {
    if (strcmp(keys[i], "operators") == 0) {
      settings->add = strstr(values[i], "add") != NULL;
      settings->mul = strstr(values[i], "mul") != NULL;
    } else if (strcmp(keys[i], "fault") == 0) {
      snprintf(settings->fault, sizeof settings->fault, "%s", values[i]);
    } else {
      report_error("there is no such option");
      free(settings);
      return NULL;
    }
  }
  if (has_fault(settings, "create")) {
    report_error("no hardware of that kind is here");
    free(settings);
    return NULL;
  }
  if (has_fault(settings, "chatty")) {
    puts("hardware of that kind is here"); /* no fault */
    fflush(stdout);
  }
  if (has_fault(settings, "crash-create")) *(volatile int *)8 = 1;
  if (has_fault(settings, "hang-create"))
    for (;;) ;
  if (has_fault(settings, "thread")) { /* no fault: it begins behind the lock-down */
    pthread_t thread;
    pthread_create(&thread, NULL, do_nothing, NULL);
  }
  /* Takes all when it is asked, and nothing later: each delegate is a new one. */
  if (has_fault(settings, "forgets") && created++ > 0) settings->add = settings->mul = false;
  Delegate *delegate = calloc(1, sizeof *delegate);
  delegate->data = settings;
  delegate->Prepare = prepare_delegate;
  delegate->flags = has_fault(settings, "fixed") ? 0 : 1; /* 1: allows dynamic tensors */
  if (has_fault(settings, "opaque")) delegate->opaque_delegate_builder = settings;
  if (has_fault(settings, "no-prepare")) delegate->Prepare = NULL;
  return delegate;
}

__attribute__((visibility("default"))) void tflite_plugin_destroy_delegate(Delegate *delegate) {
  Settings *settings = delegate->data; /* a null pointer crashes here, as in many libraries */
  if (settings->kernels) abort(); /* kernels outlive their delegate */
  free(settings);
  free(delegate);
}
