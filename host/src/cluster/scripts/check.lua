-- Whether a partition is still its owner's and complete, and the events that wait, after the connection was lost.
-- KEYS: the partition, its waiting events. ARGV: epoch, the owner's number, number of the last batch that was answered.
local mine, me, number = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
--VERDICT
if last < number then
  return {'lost'}
end
return {'done', redis.call('HGETALL', KEYS[2])}
